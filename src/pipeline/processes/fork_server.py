"""Processes with all imports behind them, from which others are forked.

They do nothing else, so that no thread and no connection of theirs is forked. Each fork ends with whoever
asked for it.
"""

import importlib
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NoReturn, Self

from pipeline.artifacts.workspace import Workspace
from pipeline.processes.system import die_with_parent, name_process

_MAX_DESCRIPTORS = 3  # standard output, standard error, one more
_NUMBER = struct.Struct("i")
_SECONDS_BETWEEN_SIGNALS = 10.0


class ForkServer:
    """A handle to such processes, which end with the one that started them."""

    def __init__(self, code: Workspace, module: str, pools: Sequence[str]) -> None:
        """Start them.

        Args:
            code: has the package that they import.
            module: run with the numbers of the listening sockets, in the order of `pools`; does the imports.
            pools: the names of the processes, by what they have imported.
        """
        self._folder = tempfile.TemporaryDirectory()
        # The names of sockets may be no longer than a hundred characters: a workspace's may be.
        self.address = self._folder.name
        with ExitStack() as listening:
            numbers = []
            for name in pools:
                listener = listening.enter_context(socket.socket(socket.AF_UNIX))
                listener.bind(f"{self.address}/{name}")
                listener.listen()
                numbers.append(listener.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, numbers)],
                env=os.environ | {"PYTHONPATH": str(code.root / "src")},
                stdin=subprocess.DEVNULL,
                pass_fds=numbers,
                process_group=0,  # Ctrl-C is for whoever asked for a fork.
            )

    def stop(self) -> None:
        """End them, and the forks with them."""
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Fork:
    """A process that a fork server forked; used as `subprocess.Popen` is, as far as that goes."""

    def __init__(
        self,
        server: str,
        pool: str,
        module: str,
        arguments: Sequence[str],
        place: Path,
        environment: Mapping[str, str],
        descriptors: Sequence[int],
    ) -> None:
        """Have `module.main(*arguments)` run in a new process, once the server has imported what that takes.

        It is told to end when this process dies.

        Args:
            server: a fork server's address.
            pool: which of its processes to fork.
            module: whose `main` gives the exit code.
            arguments: of `main`, before the numbers of the descriptors beyond the first two.
            place: the directory in which it runs.
            environment: all of its variables.
            descriptors: its standard output and error, and any others that `main` is to have.

        Raises:
            OSError: the server died.
        """
        request = {
            "module": module,
            "arguments": list(arguments),
            "place": str(place),
            "environment": dict(environment),
        }
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(f"{server}/{pool}")
        text = json.dumps(request).encode()
        socket.send_fds(self._connection, [_NUMBER.pack(len(text))], list(descriptors))
        self._connection.sendall(text)
        self._module = module
        self._told: list[int] = []  # its number, then its exit code

    @property
    def pid(self) -> int:
        """Its number, for which the server may have to come to it first.

        Raises:
            ConnectionError: the server died before.
        """
        self._hear(1, timeout=None)
        if not self._told:
            raise ConnectionError("the process that imported everything died")
        return self._told[0]

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, -SIGKILL if it was killed.

        Raises:
            subprocess.TimeoutExpired: it did not end within `timeout` seconds.
        """
        # To its very end: if this end of the connection was closed before, that would tell it to end.
        self._hear(math.inf, timeout)
        return self._told[1] if len(self._told) == 2 else -signal.SIGKILL

    def poll(self) -> int | None:
        """Its exit code; None: it has not ended."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(timeout=1e-3)
        return None

    def terminate(self) -> None:
        """Tell it to end, also if it has yet to begin."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def _hear(self, numbers: float, timeout: float | None) -> None:
        """Have it tell so many numbers, or fewer if it ends before."""
        try:
            while len(self._told) < numbers and self._connection.fileno() >= 0:
                self._connection.settimeout(timeout)
                if received := self._connection.recv(_NUMBER.size, socket.MSG_WAITALL):
                    self._told += _NUMBER.unpack(received)
                else:
                    self._connection.close()
        except TimeoutError:
            raise subprocess.TimeoutExpired(self._module, timeout or 0) from None
        except ConnectionError:
            self._connection.close()


def serve(listener: socket.socket) -> NoReturn:
    """Fork whatever is asked for at `listener`, for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # The kernel buries the dead.
    # Python sees threads of OpenBLAS and jemalloc, which both take care of forks.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    while True:
        connection, _ = listener.accept()
        with connection:
            length, descriptors, _, _ = socket.recv_fds(connection, _NUMBER.size, _MAX_DESCRIPTORS)
            if len(length) == _NUMBER.size and len(descriptors) >= 2:
                text = connection.recv(_NUMBER.unpack(length)[0], socket.MSG_WAITALL)
                if not os.fork():
                    listener.close()
                    _become(json.loads(text), descriptors, connection)
            # Otherwise whoever called was killed before it said what it wanted.
            for descriptor in descriptors:
                os.close(descriptor)


def _become(request: dict[str, Any], descriptors: list[int], connection: socket.socket) -> None:
    """Be the process that was asked for, to its end."""
    code = 1
    try:
        os.setpgid(0, 0)
        die_with_parent()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, descriptor in zip((1, 2), descriptors[:2], strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(request["place"])
        os.environ.clear()
        os.environ.update(request["environment"])
        name_process(request["module"].rpartition(".")[2])
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        # From here on it may be signalled.
        connection.sendall(_NUMBER.pack(os.getpid()))
        module = importlib.import_module(request["module"])
        code = module.main(*request["arguments"], *map(str, descriptors[2:]))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        # It ends anyway, and an exception would lead around the exit below.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        with suppress(ConnectionError):
            connection.sendall(_NUMBER.pack(code))
        # What waits at the end of a process is the server's, not its own.
        os._exit(code & 0xFF)


def _end_with(connection: socket.socket) -> None:
    """Tell this process to end when the other end of `connection` is closed, until it does."""
    with suppress(ConnectionError):
        connection.recv(1)
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_SECONDS_BETWEEN_SIGNALS)
