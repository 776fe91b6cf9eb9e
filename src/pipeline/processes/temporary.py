"""Folders for temporary files, none of which outlives the next command."""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import PipelineError

# Nothing that a person calls a folder, such as a clone in /tmp/pipeline-test, may be taken for one.
_PREFIX = "pipeline~"
_NAME = re.compile(_PREFIX + r"[a-z0-9_]{8}")


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder among the system's temporary files; those that killed processes left are removed first.

    Raises:
        PipelineError: there is no place for temporary files.
    """
    try:
        system = Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise PipelineError(
            "Nothing can be written to any of the usual folders for temporary files, such as /tmp: make room "
            "there, or name another one in the environment variable TMPDIR."
        ) from None
    for left_over in system.glob(f"{_PREFIX}*"):
        if _NAME.fullmatch(left_over.name) and (descriptor := _lock(left_over)) is not None:
            _remove(left_over, descriptor)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=system))
        descriptor = _lock(folder)
        # Another process may have taken it for a left-over before it was locked.
        if descriptor is not None and folder.exists():
            break
    try:
        yield folder
    finally:
        _remove(folder, descriptor)


@contextmanager
def temporary_files_apart() -> Iterator[None]:
    """Have the temporary files of this process, and of those that it starts, go with it.

    Raises:
        PipelineError: there is no place for them.
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
    """The descriptor that holds the lock of a folder until it is closed.

    None: another process holds it, it is another user's, or it is gone, or no folder.
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
    """Remove a folder that is locked; the next command removes what a child still writes there."""
    shutil.rmtree(folder, ignore_errors=True)
    os.close(descriptor)
