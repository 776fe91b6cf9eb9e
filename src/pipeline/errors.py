"""What reaches a person when something goes wrong: a sentence, not a traceback."""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.console import outlive_readers


class PipelineError(Exception):
    """Something the person at the keyboard can mend; its text is shown as it is, without a traceback."""


class PrunedError(PipelineError):
    """A trial was ended between epochs since others do better; its text says how."""


_DISK = {
    errno.ENOSPC: "The disk is full",
    errno.EDQUOT: "The disk quota is used up",
    errno.EROFS: "The file system is read-only",
    errno.EACCES: "Writing or reading is not permitted",
}


_told_to_end: list[int] = []  # the exit code, once SIGTERM came


@contextmanager
def sentences() -> Iterator[None]:
    """End the process with exit code 1 and one sentence for a failure that a person can mend.

    Ctrl-C ends it with 130, SIGTERM with 143 and SIGHUP with 129, after every `finally` has run.
    HYDRA_FULL_ERROR=1 shows tracebacks instead. Where nobody reads the output any more, the work goes on.
    """
    outlive_readers()
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, _terminate)
    _told_to_end.clear()
    try:
        yield
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except (PipelineError, OSError) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        if isinstance(error, OSError):
            if error.errno not in _DISK:
                raise
            place = f" at {error.filename}" if error.filename else ""
            error = PipelineError(
                f"{_DISK[error.errno]}{place}: nothing was left half-written. Mend that and run it again."
            )
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _terminate(number: int, frame: FrameType | None) -> None:
    _told_to_end.append(128 + number)
    sys.exit(128 + number)


def end_if_told() -> None:
    """End the process if SIGTERM came inside a destructor or a callback, out of which no exception gets."""
    if _told_to_end:
        sys.exit(_told_to_end.pop())
