"""Locks between processes, which do not outlive them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.console import say


@contextmanager
def locked(path: Path, timeout: float = -1, waiting: str = "") -> Iterator[None]:
    """Hold a lock inside the `with`.

    Args:
        path: the file that is locked, which is gone afterwards; its folder is created.
        timeout: in seconds, after which to give up; negative: never.
        waiting: a line to say if another process holds it.

    Raises:
        Timeout: another process holds it (filelock's exception).
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
        # While it is held: whoever waits for the file sees that it is gone, and makes a new one.
        path.unlink(missing_ok=True)
        lock.release()
