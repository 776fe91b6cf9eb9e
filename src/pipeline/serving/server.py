"""`pipeline serve`: start the HTTP server, with one process or several."""

import errno
import functools
import ipaddress
import logging
import os
import re
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from uvicorn.supervisors import Multiprocess

from pipeline.artifacts.workspace import Workspace
from pipeline.console import say
from pipeline.errors import PipelineError
from pipeline.processes.system import die_with_parent
from pipeline.processes.temporary import temporary_folder
from pipeline.serving.application import create_application
from pipeline.serving.connection import LimitedProtocol
from pipeline.serving.guard import Access
from pipeline.serving.metrics import Metrics
from pipeline.serving.reference import Resolved, resolve
from pipeline.serving.served import Served
from pipeline.serving.service import Service
from pipeline.serving.shared_model import SharedModel
from pipeline.serving.watch import watch

_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_LEAST_TOKEN = 16  # characters
_CONNECTIONS = 1000
_GRACE_SECONDS = 30  # for the requests in flight when the server shuts down


@dataclass(frozen=True)
class Settings:
    """The options of `pipeline serve`."""

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
        """Check the options that restrict access, and return the limits for the guard.

        Raises:
            PipelineError: If other machines could connect without a name or a token, or a name is invalid.
        """
        if not _is_loopback(self.host):
            if not self.hosts or not self.token:
                raise PipelineError(
                    f"--host {self.host} lets other machines connect. That requires --allowed-hosts NAME, "
                    "the name by which they address this server, and a token in the environment variable "
                    "PIPELINE_TOKEN."
                )
            if len(self.token) < _LEAST_TOKEN:
                raise PipelineError(
                    f"PIPELINE_TOKEN has {len(self.token)} characters and needs at least {_LEAST_TOKEN}: use "
                    "the output of `openssl rand -hex 16`."
                )
        body = self.body_mib * 2**20
        own = (self.host,) if _is_loopback(self.host) else ()
        names = frozenset((*_LOCAL, *map(_host, (*self.hosts, *own))))
        return Access(names, frozenset(map(_origin, self.origins)), self.token, body, 16 * body)


def serve(settings: Settings, workspace: Workspace) -> None:
    """Serve a model until SIGTERM or Ctrl-C, and finish the requests in flight.

    Raises:
        PipelineError: If there is no such model, the port is in use, or others could connect without a token.
    """
    settings.access()  # Refuses options that are not safe before anything is opened or loaded.
    listener = _listen(settings.host, settings.port)
    resolved = resolve(settings.model, workspace, with_card=True)
    served = Served.load(resolved)
    _allow_many_connections()
    say(f"Serving {_describe(served)} at {_address(settings)} (Ctrl-C to stop).")
    hang_up = signal.getsignal(signal.SIGHUP)
    with closing(listener):
        if settings.workers > 1:
            with temporary_folder() as folder:
                SharedModel(folder).put_copy(resolved)
                start = functools.partial(_process, settings, workspace, folder, os.getpid())
                processes = Multiprocess(configure(start, settings.workers), sockets=[listener])
                _end_on_hang_up(hang_up)
                processes.run()
            return
        # uvicorn raises these signals again after its shutdown, which would kill the process.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        _end_on_hang_up(hang_up)
        start = functools.partial(_application, settings, workspace, served)
        uvicorn.Server(configure(start)).run(sockets=[listener])


def _end_on_hang_up(hang_up: object) -> None:
    """Treat SIGHUP, from a closed terminal, like SIGTERM, unless it was ignored before (nohup)."""
    ignored = hang_up == signal.SIG_IGN
    signal.signal(
        signal.SIGHUP,
        signal.SIG_IGN if ignored else lambda number, frame: os.kill(os.getpid(), signal.SIGTERM),
    )


def _process(settings: Settings, workspace: Workspace, folder: Path, parent: int) -> Starlette:
    """Load the model and create the application, in one of several processes.

    The processes share `folder`; the process `parent` supervises this one.
    """
    # The parent tells this process to end. If the parent is killed, this one must end too, or it would keep
    # the port in use.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    die_with_parent()
    if os.getppid() != parent:
        sys.exit(1)  # The parent was killed before `die_with_parent` took effect.
    shared = SharedModel(folder)
    served = Served.load(shared.get())
    return _application(settings, workspace, served, folder / "counts", shared.put)


def _application(
    settings: Settings,
    workspace: Workspace,
    served: Served,
    counts: Path | None = None,
    keep: Callable[[Resolved], None] | None = None,
) -> Starlette:
    metrics = Metrics(served.classes, settings.workers, counts)
    service = Service(served, metrics, settings.batch_ms / 1000)
    background = None
    if settings.model and "@" in settings.model and not Path(settings.model).is_file():
        find = functools.partial(resolve, settings.model, workspace, with_card=True)
        background = functools.partial(watch, find=find, keep=keep)
    return create_application(service, settings.access(), background)


def configure(start: Callable[[], Starlette], workers: int = 1) -> uvicorn.Config:
    """Return uvicorn's configuration; `start` creates the application in each process."""
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
    # Without IPPROTO_TCP, asyncio would leave Nagle's algorithm on, which delays each answer by 40 ms.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise PipelineError(
                f"--host {host} is not an address of this machine ({reason}): use one that is, such as "
                "127.0.0.1, or 0.0.0.0 for all of them."
            ) from None
        # Ports below 1024 often require privileges.
        other = port + 1 if 1024 <= port < 65535 else 8000
        raise PipelineError(
            f"{host}, port {port}, can't be used ({reason}): choose another port, `pipeline serve --port "
            f"{other}`."
        ) from None
    return listener


def _host(name: str) -> str:
    """Return a name as it appears in the Host header, without the port."""
    bare = name.strip("[]").lower()
    with suppress(ValueError):
        return f"[{bare}]" if ipaddress.ip_address(bare).version == 6 else bare
    if not re.fullmatch(r"[^\s/:*,@\[\]]+", bare):
        raise PipelineError(
            f"--allowed-hosts {name} is not a host name: leave out https:// and the port, as in "
            "models.example.org, and repeat --allowed-hosts for each further name."
        )
    return bare


def _origin(site: str) -> str:
    if not re.fullmatch(r"https?://[^\s/*,]+", site):
        raise PipelineError(
            f"--allow-origin {site} is not an origin: write https://NAME or https://NAME:PORT, without a "
            "path, and repeat --allow-origin for each further site."
        )
    return site.lower()


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


def _describe(served: Served) -> str:
    name, run = served.source.name, served.classifier.description.run.name
    version = f" version {served.source.version}" if served.source.version else ""
    return f"{name}{version}" + (f" (run {run})" if run != name else "")


def _address(settings: Settings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"
