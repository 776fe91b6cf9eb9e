"""The warm worker of a sweep: a process with all imports behind it, in which stages run one after another.

DVC starts each stage as always, and from the training on its process hands the work over
(`pipeline.processes.handover`): the commands, and with them DVC's cache keys, are those of `dvc repro`, after
the pattern of Bazel's persistent workers. What a stage writes here equals what it writes in a process of its
own.
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
    """A handle to a warm worker, which ends with the process that has it."""

    def __init__(self, server: str, target: Target = Target()) -> None:  # noqa: B008 (it is frozen)
        """Have the fork server at `server` start one, for trainings that compute with `target`.

        Raises:
            OSError: the server died.
        """
        self.target = target
        self.trials = 1  # that it was used for
        self._folder = tempfile.TemporaryDirectory(dir=server)
        self.address = str(Path(self._folder.name) / "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.address)
            listener.listen()
            descriptors = (1, 2, listener.fileno())
            arguments = (self._folder.name,)
            # JAX must not be there before a fork. The worker imports it, for all that it will run.
            pool = KERAS if target.backend == "tensorflow" else DVC
            super().__init__(server, pool, __name__, arguments, Path.cwd(), os.environ, descriptors)
        atexit.register(self.stop)

    @property
    def alive(self) -> bool:
        """Whether it can take another stage."""
        return self.poll() is None

    def stop(self) -> None:
        """End it, with the stage that it runs if there is one."""
        atexit.unregister(self.stop)
        self.terminate()
        self.wait()
        self._folder.cleanup()


def main(folder: str, descriptor: str) -> NoReturn:
    """Run the stages that arrive at the socket `descriptor`, one after the other.

    Temporary files lie in `folder`: TensorFlow removes its own at an exit that a worker does not come to.
    """
    tempfile.tempdir = folder
    # Ctrl-C and other signals to a group are for the process that waits for the stage.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listener = socket.socket(fileno=int(descriptor))
    while True:
        with closing(listener.accept()[0]) as connection:
            message, descriptors, _, _ = socket.recv_fds(connection, _MAX_REQUEST, 2)
            # It may have been ended while it waited for its turn, and its directory be gone.
            if len(descriptors) < 2 or is_closed(connection):
                for number in descriptors:
                    os.close(number)
                continue
            code = _answer(json.loads(message), descriptors, connection)
            with suppress(ConnectionError):
                connection.send(str(code).encode())
        # An exception out of a destructor or a callback of TensorFlow's is lost, and the signal with it.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _forget()


def _answer(request: dict[str, Any], descriptors: list[int], connection: socket.socket) -> int:
    """The exit code that the stage would have in a process of its own."""
    os.chdir(request["cwd"])
    before = dict(os.environ)
    os.environ.update(request["environment"])
    try:
        with _writing_to(descriptors), _abandoned_with(connection) as abandoned:
            try:
                with exit_on_error():
                    run(request["stage"], Workspace(Path.cwd()))
            except SystemExit as end:
                if end.code == _TERMINATED and not abandoned.is_set():
                    raise  # It was this process that was to end.
                return int(end.code or 0)
            except Exception:
                traceback.print_exc()
                return 1
            return 0
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _abandoned_with(connection: socket.socket) -> Iterator[threading.Event]:
    """Stop what runs inside when the other end of `connection` closes it, as its death does."""
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
def _writing_to(descriptors: list[int]) -> Iterator[None]:
    """Have standard output and error go to `descriptors` inside, and close those after."""
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


def _forget() -> None:
    """Let go of what Keras keeps of models, their numbered names among it."""
    if keras := sys.modules.get("keras"):
        keras.backend.clear_session()
    gc.collect()
