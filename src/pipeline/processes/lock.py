"""Locks between processes, and folders for temporary files; neither outlives the next command."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.artifacts.workspace import remove
from pipeline.console import say

_PREFIX = "pipeline-"


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


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder among the system's temporary files; those that killed processes left are removed first."""
    system = Path(tempfile.gettempdir())
    for left_over in system.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if left_over.stat().st_uid == os.getuid() and (descriptor := _lock(left_over)) is not None:
                remove(left_over)
                os.close(descriptor)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=system))
        descriptor = _lock(folder)
        # Another process may have taken it for a left-over before it was locked.
        if descriptor is not None and folder.exists():
            break
    try:
        yield folder
    finally:
        remove(folder)
        os.close(descriptor)


@contextmanager
def temporary_files_apart() -> Iterator[None]:
    """Have the temporary files of this process, and of those that it starts, go with it."""
    before = os.environ.get("TMPDIR")
    with temporary_folder() as folder:
        os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
        try:
            yield
        finally:
            if before is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = before
            tempfile.tempdir = None


def _lock(folder: Path) -> int | None:
    """The descriptor that holds the lock of a folder until it is closed; None: another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
