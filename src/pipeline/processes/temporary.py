"""Folders for temporary files; if one is left behind, the next command removes it."""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import PipelineError

# An unusual prefix: folders that users create, such as /tmp/pipeline-test, must not match.
_PREFIX = "pipeline~"
_NAME = re.compile(_PREFIX + r"[a-z0-9_]{8}")


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Create a new temporary folder, after removing those that killed processes left behind.

    Raises:
        PipelineError: If no folder for temporary files can be written to.
    """
    try:
        system = Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise PipelineError(
            "None of the usual folders for temporary files, such as /tmp, can be written to: free some space "
            "there, or set the environment variable TMPDIR to another folder."
        ) from None
    for leftover in system.glob(f"{_PREFIX}*"):
        if _NAME.fullmatch(leftover.name) and (descriptor := _lock(leftover)) is not None:
            _remove(leftover, descriptor)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=system))
        descriptor = _lock(folder)
        # Another process may have removed it as a leftover before it was locked.
        if descriptor is not None and folder.exists():
            break
    try:
        yield folder
    finally:
        _remove(folder, descriptor)


@contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Use a new folder for the temporary files of this process and its children, and remove it at the end.

    Raises:
        PipelineError: If no folder for temporary files can be written to.
    """
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
    """Lock a folder and return the descriptor that holds the lock until it is closed.

    Return None if another process holds the lock, or if `folder` belongs to another user, is gone or is not a
    folder.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    with suppress(BlockingIOError):
        if os.fstat(descriptor).st_uid == os.getuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
    os.close(descriptor)
    return None


def _remove(folder: Path, descriptor: int) -> None:
    """Remove a locked folder; the next command removes what a child process still writes there."""
    shutil.rmtree(folder, ignore_errors=True)
    os.close(descriptor)
