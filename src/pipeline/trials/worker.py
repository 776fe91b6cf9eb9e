"""The warm worker of a sweep: a process that has everything imported and runs stages one after another.

DVC starts each stage as usual, but from the training on, the stage's process hands its work over to the
worker (`pipeline.processes.handover`), as with Bazel's persistent workers. So the commands, and with them
DVC's cache keys, are those of `dvc repro`. A stage writes the same files here as in its own process.
"""

import atexit
import gc
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pipeline.artifacts.workspace import Workspace
from pipeline.environment import Target
from pipeline.errors import exit_on_error
from pipeline.processes.fork_server import Fork, is_closed
from pipeline.stages.__main__ import run
from pipeline.trials.preload import DVC, KERAS

_MAX_REQUEST = 65536  # bytes
_TERMINATED = 128 + signal.SIGTERM


class Worker(Fork):
    """A handle to a warm worker, which ends when the process that has the handle ends."""

    def __init__(self, server: str, target: Target = Target()) -> None:  # noqa: B008 (it is frozen)
        """Start a worker through the fork server at `server`, for trainings that compute with `target`.

        Raises:
            OSError: If the server died.
        """
        self.target = target
        self.trials = 1  # how many trials have used it
        self._folder = tempfile.TemporaryDirectory(dir=server)
        self.address = str(Path(self._folder.name) / "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.address)
            listener.listen()
            descriptors = (1, 2, listener.fileno())
            arguments = (self._folder.name,)
            # JAX must not be imported before a fork, so the worker imports it, once for all stages.
            pool = KERAS if target.backend == "tensorflow" else DVC
            super().__init__(server, pool, __name__, arguments, Path.cwd(), os.environ, descriptors)
        atexit.register(self.stop)

    @property
    def alive(self) -> bool:
        """Whether the worker can run another stage."""
        return self.poll() is None

    def stop(self) -> None:
        """End the worker, together with the stage that it is running."""
        atexit.unregister(self.stop)
        self.terminate()
        self.wait()
        self._folder.cleanup()


def main(folder: str, descriptor: str) -> NoReturn:
    """Run the stages that are requested at the socket `descriptor`, one after the other.

    Temporary files are in `folder`, because TensorFlow's own cleanup at exit never runs in a worker.
    """
    tempfile.tempdir = folder
    # Ctrl-C, which goes to the whole group, is handled by the process that waits for the stage.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listener = socket.socket(fileno=int(descriptor))
    while True:
        with closing(listener.accept()[0]) as connection:
            message, descriptors, _, _ = socket.recv_fds(connection, _MAX_REQUEST, 2)
            # The client may have been ended while it waited for its turn, and its directory may be gone.
            if len(descriptors) < 2 or is_closed(connection):
                for number in descriptors:
                    os.close(number)
                continue
            code = _run_stage(json.loads(message), descriptors, connection)
            with suppress(ConnectionError):
                connection.send(str(code).encode())
        # If a handler raised an exception in one of TensorFlow's callbacks, the signal would be lost.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _free_models()


def _run_stage(request: dict[str, Any], descriptors: list[int], connection: socket.socket) -> int:
    """Run the requested stage and return the exit code that it would have in its own process."""
    os.chdir(request["cwd"])
    before = dict(os.environ)
    os.environ.update(request["environment"])
    try:
        with _output_to(descriptors), _stopped_with(connection) as abandoned:
            try:
                with exit_on_error():
                    run(request["stage"], Workspace(Path.cwd()))
            except SystemExit as end:
                if end.code == _TERMINATED and not abandoned.is_set():
                    raise  # The signal was for this process.
                return int(end.code or 0)
            except Exception:
                traceback.print_exc()
                return 1
            return 0
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _stopped_with(connection: socket.socket) -> Iterator[threading.Event]:
    """Stop the code inside the `with` when the other end of `connection` closes it or dies."""
    over, abandoned = threading.Event(), threading.Event()

    def abandon(number: int, frame: FrameType | None) -> None:
        if not over.is_set():
            abandoned.set()
            sys.exit(_TERMINATED)

    def watch() -> None:
        with suppress(OSError):
            connection.recv(1)
        if not over.is_set():
            os.kill(os.getpid(), signal.SIGUSR1)

    signal.signal(signal.SIGUSR1, abandon)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield abandoned
    finally:
        over.set()
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RD)
        watcher.join()


@contextmanager
def _output_to(descriptors: list[int]) -> Iterator[None]:
    """Redirect standard output and error to `descriptors` inside the `with`, and close them."""
    before = [os.dup(1), os.dup(2)]

    def redirect(to: list[int]) -> None:
        for stream, number, target in zip((sys.stdout, sys.stderr), (1, 2), to, strict=True):
            stream.flush()
            os.dup2(target, number)
            os.close(target)

    redirect(descriptors)
    try:
        yield
    finally:
        redirect(before)


def _free_models() -> None:
    """Clear the state that Keras keeps of models, including the numbers in their names."""
    if keras := sys.modules.get("keras"):
        keras.backend.clear_session()
    gc.collect()
