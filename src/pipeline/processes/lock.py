"""Locks between processes, which are released when a process ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.console import say


@contextmanager
def locked(path: Path, timeout: float = -1, waiting: str = "") -> Iterator[None]:
    """Hold a lock inside the `with`.

    Args:
        path: The file to lock, which is removed afterwards; its folder is created.
        timeout: How many seconds to wait for the lock; if negative, without a limit.
        waiting: A line to print if another process holds the lock.

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
