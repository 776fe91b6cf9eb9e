"""Processes that have their imports behind them, from which others are forked.

They do nothing else, so that no thread and no connection of theirs is forked. Each fork ends with the process
that asked for it.
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
from pipeline.processes.temporary import temporary_folder

_MAX_DESCRIPTORS = 3  # standard output, standard error, one more
_NUMBER = struct.Struct("i")
_SECONDS_BETWEEN_SIGNALS = 10.0


class ForkServer:
    """A handle to such processes, which end with the one that started them."""

    def __init__(self, code: Workspace, module: str, pools: Sequence[str], *arguments: str) -> None:
        """Start them.

        Args:
            code: has the package that they import.
            module: run with the numbers of the listening sockets, in the order of `pools`; does the imports.
            pools: the names of the processes, by what they have imported.
            arguments: what `module` is told after the numbers.
        """
        self._open = ExitStack()
        # The names of sockets may be no longer than a hundred characters: a workspace's may be.
        self.address = str(self._open.enter_context(temporary_folder()))
        with ExitStack() as listening:
            numbers = []
            for name in pools:
                listener = listening.enter_context(socket.socket(socket.AF_UNIX))
                listener.bind(f"{self.address}/{name}")
                listener.listen()
                numbers.append(listener.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, numbers), *arguments],
                env=os.environ | {"PYTHONPATH": str(code.root / "src")},
                stdin=subprocess.DEVNULL,
                pass_fds=numbers,
                process_group=0,  # Ctrl-C is for the process that asked for a fork.
            )

    def stop(self) -> None:
        """End them, and the forks with them."""
        self._process.terminate()
        self._process.wait()
        self._open.close()

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
        cwd: Path,
        environment: Mapping[str, str],
        descriptors: Sequence[int],
    ) -> None:
        """Have `module.main(*arguments)` run in a new process, once the server has imported what that takes.

        It is signalled to end when this process dies.

        Args:
            server: a fork server's address; temporary files lie there, too.
            pool: which of its processes to fork.
            module: whose `main` gives the exit code.
            arguments: of `main`, before the numbers of the descriptors beyond the first two.
            cwd: the directory in which it runs.
            environment: all of its variables.
            descriptors: its standard output and error, and any others that `main` is to have.

        Raises:
            OSError: the server died.
        """
        request = {
            "module": module,
            "arguments": list(arguments),
            "cwd": str(cwd),
            "environment": {**environment, "TMPDIR": server},
        }
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(f"{server}/{pool}")
        text = json.dumps(request).encode()
        socket.send_fds(self._connection, [_NUMBER.pack(len(text))], list(descriptors))
        self._connection.sendall(text)
        self._module = module
        self._replies: list[int] = []  # its process id, then its exit code

    @property
    def pid(self) -> int:
        """Its process id, for which the server may have to come to it first.

        Raises:
            ConnectionError: the server died before.
        """
        self._read_replies(1, timeout=None)
        if not self._replies:
            raise ConnectionError("the process that imported everything died")
        return self._replies[0]

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, -SIGKILL if it was killed.

        Raises:
            subprocess.TimeoutExpired: it did not end within `timeout` seconds.
        """
        # To its very end: if this end of the connection was closed before, that would signal it to end.
        self._read_replies(math.inf, timeout)
        return self._replies[1] if len(self._replies) == 2 else -signal.SIGKILL

    def poll(self) -> int | None:
        """Its exit code; None: it has not ended."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(timeout=1e-3)
        return None

    def terminate(self) -> None:
        """Signal it to end, also if it has yet to begin."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def _read_replies(self, count: float, timeout: float | None) -> None:
        """Read until it has sent so many numbers, or fewer if it ends before."""
        try:
            while len(self._replies) < count and self._connection.fileno() >= 0:
                self._connection.settimeout(timeout)
                if received := self._connection.recv(_NUMBER.size, socket.MSG_WAITALL):
                    self._replies += _NUMBER.unpack(received)
                else:
                    self._connection.close()
        except TimeoutError:
            raise subprocess.TimeoutExpired(self._module, timeout or 0) from None
        except ConnectionError:
            self._connection.close()


def serve(listener: socket.socket) -> NoReturn:
    """Fork what is asked for at `listener`, for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Forks that ended are reaped by the kernel.
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
                    _run_request(json.loads(text), descriptors, connection)
            # Otherwise the process that called was killed before it had sent its request.
            for descriptor in descriptors:
                os.close(descriptor)


def _run_request(request: dict[str, Any], descriptors: list[int], connection: socket.socket) -> None:
    """Run the module of a request in this fork, to the end of the process."""
    code = 1
    try:
        os.setpgid(0, 0)
        die_with_parent()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, descriptor in zip((1, 2), descriptors[:2], strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["environment"])
        tempfile.tempdir = None  # What it is follows from the environment.
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
        # The process that asked may have died, and its directory be gone, before this one began.
        if not is_closed(connection):
            traceback.print_exc()
    finally:
        # It ends anyway, and an exception would lead around the exit below.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        with suppress(ConnectionError):
            connection.sendall(_NUMBER.pack(code))
        # What else is to happen at the end of a process was registered by the server.
        os._exit(code & 0xFF)


def is_closed(connection: socket.socket) -> bool:
    """Whether the other end of `connection` has closed it, as its death does."""
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def _end_with(connection: socket.socket) -> None:
    """Signal this process to end when the other end of `connection` is closed, until it does."""
    with suppress(ConnectionError):
        connection.recv(1)
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_SECONDS_BETWEEN_SIGNALS)
