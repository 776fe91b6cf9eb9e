"""Serve MLflow's pages for the runs of a repository on this machine, starting with the training runs."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, suppress
from pathlib import Path

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.console import say
from pipeline.errors import PipelineError
from pipeline.processes.system import die_with_parent
from pipeline.tracking.store import connection_settings, is_server, open_store, uri_of
from pipeline.tracking.view import VIEW, VIEW_TAG

_HOST = "127.0.0.1"
_START_TIMEOUT = 120.0  # seconds until the server must answer
# Two processes and 0.5 GB instead of fifteen and 2.6 GB, no telemetry and no unpickling.
_SETTINGS = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_WORKERS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}


def serve(tracking: TrackingSection, workspace: Workspace, port: int) -> int:
    """Serve the runs until Ctrl-C, print the address of the page to open, and return the exit code.

    If the runs are on a tracking server, which has its own pages, only print their address.

    Raises:
        PipelineError: If the server does not start.
    """
    uri = uri_of(tracking, workspace)
    if is_server(tracking, workspace):
        say(f"The runs are at {_page(uri.rstrip('/'), tracking, workspace)}")
        return 0
    address = f"http://{_HOST}:{port}"
    log = workspace.scratch / "ui.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "ui", "--host", _HOST, "--port", str(port)],
            cwd=workspace.home,
            env={**_SETTINGS, **connection_settings(uri), **os.environ, "MLFLOW_BACKEND_STORE_URI": uri},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C goes only to this process, which then ends the server.
            preexec_fn=die_with_parent,
        )
    try:
        say(f"Starting MLflow; its output is in {log}.")
        page = _page(address, tracking, workspace)
        _wait_for(address, server, log)
        say(f"The runs are at {page}\nPress Ctrl-C to stop.")
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        server.wait()


def refuse_busy(port: int, tracking: TrackingSection, workspace: Workspace) -> None:
    """Refuse a port that `serve` can't use, and suggest the next free one."""
    reason = None if is_server(tracking, workspace) else _bind_error(port)
    if reason:
        free = next((other for other in range(max(port, 1023) + 1, 65536) if not _bind_error(other)), None)
        offer = f" {free} is free: `make ui PORT={free}` or `pipeline ui --port {free}`." if free else ""
        raise PipelineError(f"Port {port} can't be used ({reason}).{offer}")


def _bind_error(port: int) -> str | None:
    # SO_REUSEADDR, as the server sets it: a port whose last connection is still closing is free.
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return None


def _page(address: str, tracking: TrackingSection, workspace: Workspace) -> str:
    """Return the address of the page of the training runs, in the experiment's saved view if it has one."""
    store = open_store(tracking, workspace)
    tags = store.client.get_experiment(store.experiment).tags
    view = f"&viewStateShareKey={VIEW}" if VIEW_TAG in tags else ""
    return f"{address}/#/experiments/{store.experiment}/runs?workflowType=machine_learning{view}"


def _wait_for(address: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):  # noqa: S310
            return
        time.sleep(0.2)
    last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
    raise PipelineError(f"MLflow does not answer at {address}. The last line of {log} is: {last or 'none'}")
