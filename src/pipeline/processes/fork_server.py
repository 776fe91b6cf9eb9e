"""Fork processes from servers that have everything imported.

The servers do nothing else, so they have no threads and no connections that would be forked. Each fork ends
when the process that requested it ends.
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
    """A handle to server processes, which end with the process that started them."""

    def __init__(self, code: Workspace, module: str, pools: Sequence[str], *arguments: str) -> None:
        """Start the servers.

        The module is run to do the imports; its first arguments are the numbers of the listening sockets of
        the servers, in the order of `pools`, which are named after what they import.
        """
        self._open = ExitStack()
        # A socket's path is limited to about a hundred characters, which a path in a workspace may exceed.
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
                process_group=0,  # Ctrl-C goes only to the process that requested a fork.
            )

    def stop(self) -> None:
        """End the servers, and the forks with them."""
        self._process.terminate()
        self._process.wait()
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Fork:
    """A process that a fork server forked, with some of the methods of `subprocess.Popen`."""

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
        """Run `module.main(*arguments)` in a new process, once the server has finished its imports.

        The new process gets a signal to end when this process dies.

        `server` is the address of a fork server, also the folder for temporary files, and `pool` the name of
        the server to fork. `main` returns the exit code. The descriptors are standard output, standard error
        and others that `main` needs, whose numbers are added to its arguments.

        Raises:
            OSError: If the server died.
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
        """The process id; this waits until the server has forked the process.

        Raises:
            ConnectionError: If the server died first.
        """
        self._read_replies(1, timeout=None)
        if not self._replies:
            raise ConnectionError("the fork server died")
        return self._replies[0]

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the process and return its exit code, which is -SIGKILL if it was killed.

        Raises:
            subprocess.TimeoutExpired: If the process did not end within `timeout` seconds.
        """
        # Read until the process has closed the connection: closing it first would signal it to end.
        self._read_replies(math.inf, timeout)
        return self._replies[1] if len(self._replies) == 2 else -signal.SIGKILL

    def poll(self) -> int | None:
        """Return the exit code, or None if the process has not ended."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(timeout=1e-3)
        return None

    def terminate(self) -> None:
        """Signal the process to end, even if it has not started yet."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def _read_replies(self, count: float, timeout: float | None) -> None:
        """Read until the process has sent `count` numbers or has ended."""
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
    """Fork a process for each request at `listener`, for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Forks that ended are reaped by the kernel.
    # The threads that Python warns about are those of OpenBLAS and jemalloc, which both support forks.
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
            # Otherwise the client was killed before it had sent its whole request.
            for descriptor in descriptors:
                os.close(descriptor)


def _run_request(request: dict[str, Any], descriptors: list[int], connection: socket.socket) -> None:
    """Run the module of a request in this fork, and end the process."""
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
        tempfile.tempdir = None  # It is determined again from the new environment.
        name_process(request["module"].rpartition(".")[2])
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        # From here on, the process can be signalled.
        connection.sendall(_NUMBER.pack(os.getpid()))
        module = importlib.import_module(request["module"])
        code = module.main(*request["arguments"], *map(str, descriptors[2:]))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:
        # The client may have died, and its directory may be gone, before this process started.
        if not is_closed(connection):
            traceback.print_exc()
    finally:
        # The process is ending anyway, and an exception here would skip the exit below.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        with suppress(ConnectionError):
            connection.sendall(_NUMBER.pack(code))
        # Skip exit handlers: they were registered by the server.
        os._exit(code & 0xFF)


def is_closed(connection: socket.socket) -> bool:
    """Return whether the other end of `connection` has closed it or died."""
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def _end_with(connection: socket.socket) -> None:
    """When the other end of `connection` is closed, signal this process to end until it does."""
    with suppress(ConnectionError):
        connection.recv(1)
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_SECONDS_BETWEEN_SIGNALS)
