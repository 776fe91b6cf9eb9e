"""The server: `pipeline serve`."""

import functools
import ipaddress
import logging
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from uvicorn.supervisors import Multiprocess

from pipeline.artifacts.workspace import Workspace
from pipeline.console import say
from pipeline.errors import PipelineError
from pipeline.processes.temporary import temporary_folder
from pipeline.serving.application import create_application
from pipeline.serving.connection import LimitedProtocol
from pipeline.serving.guard import Access
from pipeline.serving.metrics import Metrics
from pipeline.serving.reference import Resolved, resolve
from pipeline.serving.served import Served
from pipeline.serving.service import Service
from pipeline.serving.watch import watch

_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_LEAST_TOKEN = 16  # characters
_CONNECTIONS = 1000
_GRACE_SECONDS = 30  # for the requests in flight, once the server is to end


@dataclass(frozen=True)
class Settings:
    """What a server is started with."""

    model: str | None
    host: str
    port: int
    workers: int
    hosts: tuple[str, ...]
    origins: tuple[str, ...]
    token: str | None
    body_mib: int
    batch_ms: float

    def access(self) -> Access:
        """Who may ask.

        Raises:
            PipelineError: the server would be open to others, without saying to whom.
        """
        if not _is_loopback(self.host):
            if not self.hosts or not self.token:
                raise PipelineError(
                    f"--host {self.host} lets other machines ask. That needs --allowed-hosts NAME, the name "
                    "by which they know this server, and a token in the environment variable PIPELINE_TOKEN."
                )
            if len(self.token) < _LEAST_TOKEN:
                raise PipelineError(
                    f"PIPELINE_TOKEN has {len(self.token)} characters; {_LEAST_TOKEN} are the least, such as "
                    "`openssl rand -hex 16` prints."
                )
        body = self.body_mib * 2**20
        names = (*_LOCAL, *self.hosts, *((self.host,) if _is_loopback(self.host) else ()))
        return Access(
            frozenset(name.lower() for name in names), frozenset(self.origins), self.token, body, 16 * body
        )


def serve(settings: Settings, workspace: Workspace) -> None:
    """Serve a model until SIGTERM or Ctrl-C, and end after the requests in flight.

    Raises:
        PipelineError: there is no such model, the port is in use, or others could ask without a token.
    """
    access = settings.access()
    listener = _listen(settings.host, settings.port)
    resolved = resolve(settings.model, workspace, with_card=True)
    served = Served.load(resolved)
    _allow_many_connections()
    say(f"{_named(served)} answers at {_address(settings)} (Ctrl-C ends it).")
    with closing(listener), temporary_folder() as folder:
        counts = folder / "counts" if settings.workers > 1 else None
        start = functools.partial(application, settings, access, counts, workspace, resolved)
        if counts:
            Multiprocess(configure(start, settings.workers), sockets=[listener]).run()
            return
        # uvicorn raises them again when it has ended, as if it had not.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        uvicorn.Server(configure(functools.partial(start, served))).run(sockets=[listener])


def application(
    settings: Settings,
    access: Access,
    counts: Path | None,
    workspace: Workspace,
    resolved: Resolved,
    served: Served | None = None,
) -> Starlette:
    """The application of one process; each loads the model for itself, unless it is given.

    Args:
        settings: as given to `serve`.
        access: as `settings` has it.
        counts: the file in which all processes count; None: there is only one.
        workspace: whose models are meant.
        resolved: the model file.
        served: the model, if it was loaded in this process.
    """
    served = served or Served.load(resolved)
    metrics = Metrics(served.classes, settings.workers, counts)
    service = Service(served, metrics, settings.batch_ms / 1000)
    background = None
    if settings.model and "@" in settings.model and not Path(settings.model).is_file():
        background = functools.partial(
            watch, find=functools.partial(resolve, settings.model, workspace, with_card=True)
        )
    return create_application(service, access, background)


def configure(start: Callable[[], Starlette], workers: int = 1) -> uvicorn.Config:
    """uvicorn's configuration for the application that `start` makes in each process."""
    return uvicorn.Config(
        start,
        factory=True,
        loop="uvloop",
        http=LimitedProtocol,
        ws="none",
        workers=workers,
        lifespan="on",
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


def _listen(host: str, port: int) -> socket.socket:
    # Named as TCP, or asyncio would not turn Nagle's algorithm off: 40 ms for each answer.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        raise PipelineError(
            f"{host}, port {port}, can't be used ({reason}): name another one, `pipeline serve --port "
            f"{port + 1 if port < 65535 else port - 1}`."
        ) from None
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _allow_many_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _CONNECTIONS if hard == resource.RLIM_INFINITY else min(2 * _CONNECTIONS, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _named(served: Served) -> str:
    name, run = served.source.name, served.predictor.description.run.name
    version = f" version {served.source.version}" if served.source.version else ""
    return f"{name}{version}" + (f" (run {run})" if run != name else "")


def _address(settings: Settings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"
