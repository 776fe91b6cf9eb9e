"""Servers and programs in place of those of the network."""

import http.server
import os
import threading

import pytest

from pipeline.artifacts.workspace import Workspace
from pipeline.data import download


@pytest.fixture(autouse=True)
def keras_home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras"


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def pauses(monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(download, "pause", slept.append)
    return slept


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Return a folder of fake programs in place of those that use the network."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def add(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return add


@pytest.fixture
def serve():
    """Start servers whose answer to the nth request is `answer(handler, n)`."""
    running = []

    def start(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            requests = 0

            def do_GET(self):
                type(self).requests += 1
                answer(self, type(self).requests)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        running.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", Handler

    yield start
    for server in running:
        server.shutdown()
        server.server_close()
