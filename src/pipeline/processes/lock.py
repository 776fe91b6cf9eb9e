"""Locks between processes, which are released when a process ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.console import say


@contextmanager
def locked(path: Path, timeout: float = -1, waiting: str = "") -> Iterator[None]:
    """Hold a lock inside the `with`.

    The file to lock is removed afterwards, and its folder is created. A negative timeout waits without a
    limit; if another process holds the lock, the line `waiting` is printed.

    Raises:
        Timeout: If another process still holds the lock after `timeout` seconds (filelock's exception).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if timeout == 0:
            raise
        if waiting:
            say(waiting)
        lock.acquire(timeout)
    try:
        yield
    finally:
        # Remove the file before the release: processes that wait for it notice and create a new one.
        path.unlink(missing_ok=True)
        lock.release()
