"""Errors as users see them: one sentence instead of a traceback."""

import errno
import os
import pwd
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from pipeline.console import outlive_readers


class PipelineError(Exception):
    """An error that the user can fix; its text is shown as it is, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        # Notebooks show these lines instead of a traceback.
        return [f"{type(self).__name__}: {self}"]


class PrunedError(PipelineError):
    """A trial was stopped between epochs because others do better; the text gives the details."""


OF_DVC = "DVC: "  # begins the sentence for an error that DVC's own command line would print

_DISK = {
    errno.ENOSPC: "The disk is full",
    errno.EDQUOT: "The disk quota is used up",
    errno.EIO: "The disk is full or damaged",
    errno.EFBIG: "A file is larger than the file system or `ulimit -f` allows",
    errno.EROFS: "The file system is read-only",
    errno.EACCES: "Writing or reading is not permitted",
    errno.EPERM: "Writing or reading is not permitted",
}
# Messages of libraries that drop the error number: SQLite, NumPy's tofile, shutil.copytree, HDF5.
_DISK_TEXTS = {
    r"database or disk is full|\d+ requested and \d+ written|No space left on device": errno.ENOSPC,
    r"disk I/O error": errno.EIO,
    r"Disk quota exceeded": errno.EDQUOT,
    r"attempt to write a readonly database|Read-only file system": errno.EROFS,
    r"Permission denied": errno.EACCES,
}

# Messages of Python about a compiled module that it could not write completely.
_COMPILED_TEXTS = r"marshal data too short|bad marshal data|EOF read where object expected"

# Messages of TensorFlow, XLA and ONNX Runtime, which raise no MemoryError.
_MEMORY_TEXTS = r"^RESOURCE_EXHAUSTED|OOM when allocating|Failed to allocate memory"

# Messages of Keras about convolutions and poolings that leave no pixel.
_TOO_SMALL_TEXTS = r"Computed output size would be (zero or )?negative"

# The kernel signals a process once for each thread of a parent that is killed.
_SECONDS_OF_ONE_SIGNAL = 2.0

_exit_code: list[int] = []  # set by a signal that asked the process to end, until it ends
_signalled: list[float] = []  # the times of such signals, in seconds of the monotonic clock


def explain(error: BaseException) -> str | None:
    """Return the sentence for an error that the user can fix, or None if it is a bug in the program.

    Disk errors are also found behind exceptions of libraries such as SQLAlchemy, MLflow, NumPy and shutil,
    and a lack of memory behind those of TensorFlow, JAX and ONNX Runtime. DVC's errors are sentences already.
    """
    if isinstance(error, PipelineError):
        return str(error)
    cause: BaseException | None = error
    while cause is not None:
        if found := _disk_fault(cause):
            number, path = found
            where = f" at {path}" if path else ""
            return (
                f"{_DISK[number]}{where}: nothing was left half-written. {_remedy(number, path)}"
                "Fix that and run it again."
            )
        if isinstance(cause, MemoryError) or re.search(_MEMORY_TEXTS, str(cause)):
            return (
                "There is not enough memory: use a smaller model or a smaller train.batch_size; in a sweep, "
                "run fewer trials at a time, with hydra.launcher.n_jobs=1."
            )
        if isinstance(cause, EOFError | ValueError) and re.search(_COMPILED_TEXTS, str(cause)):
            return (
                "A compiled module of Python is incomplete, as after a full disk: remove the folders "
                f"__pycache__ below {Path(__file__).parents[1]} or of the other package, and run it again."
            )
        if isinstance(cause, ValueError) and re.search(_TOO_SMALL_TEXTS, str(cause)):
            return (
                "The images are too small for the model: its convolutions or poolings leave no pixel. Select "
                "model=mlp or a model with fewer poolings, or make the images larger: `pipeline add-data "
                "--image-size` reads pictures as such."
            )
        cause = cause.__cause__ or cause.__context__
    dvc = sys.modules.get("dvc.exceptions")
    if dvc and isinstance(error, dvc.DvcException):
        return f"{OF_DVC}{' '.join(str(error).split()).removesuffix('.')}."
    return None


def _disk_fault(error: BaseException) -> tuple[int, str | None] | None:
    """Return the number and the path of a disk error, from its attributes or its text; None for others."""
    if isinstance(error, OSError) and error.errno is not None:
        return (error.errno, error.filename and str(error.filename)) if error.errno in _DISK else None
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in ("sqlalchemy", "sqlite3"):
        for pattern, number in _DISK_TEXTS.items():
            if re.search(pattern, str(error)):
                return number, None
    return None


def _remedy(number: int, path: str | None) -> str:
    """Return a sentence that names the owner of the file, if that is another user; otherwise ""."""
    with suppress(OSError, KeyError, TypeError):
        if number in (errno.EACCES, errno.EPERM) and path:
            existing = next(folder for folder in (Path(path), *Path(path).parents) if folder.exists())
            owner = existing.stat().st_uid
            if owner not in (os.geteuid(), 0):
                name = pwd.getpwuid(owner).pw_name
                return f"{existing} belongs to {name}, and each user needs their own clone. "
    return ""


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Report an error that the user can fix in one sentence, and end the process with exit code 1.

    Ctrl-C ends it with 130, SIGTERM with 143 and SIGHUP with 129, after every `finally` has run; a second
    signal within two seconds does not interrupt that.
    HYDRA_FULL_ERROR=1 shows tracebacks instead. If nobody reads the output any more, the work goes on.
    """
    outlive_readers()
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, _terminate)
    _exit_code.clear()
    _signalled.clear()
    try:
        yield
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        exit_if_terminated()
        # pydantic turns an exception that a signal raises while it builds a class into an error of its own.
        if "KeyboardInterrupt: " in str(error):
            print("Interrupted.", file=sys.stderr)
            sys.exit(130)
        sentence = explain(error)
        if sentence is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(1)


def _terminate(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _signalled and now - _signalled[-1] < _SECONDS_OF_ONE_SIGNAL:
        return  # The first signal has already begun an orderly end, which this one would interrupt.
    _signalled.append(now)
    _exit_code.append(128 + number)
    sys.exit(128 + number)


def exit_if_terminated() -> None:
    """End the process if a signal asked for it in a destructor or a callback, where exceptions are lost."""
    if _exit_code:
        sys.exit(_exit_code.pop())
