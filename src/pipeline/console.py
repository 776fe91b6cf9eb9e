"""What people see while a stage runs: bars at a terminal, a few plain lines in a log."""

import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SECONDS_BETWEEN_LINES = 5.0


class _Output(io.TextIOWrapper):
    """A stream whose reader may go, as `head` does: what follows is written nowhere."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._turn_off()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._turn_off()

    def _turn_off(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def outlive_readers() -> None:
    """Have this process go on when the pipe that it writes to is closed, or can't take a character."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            buffering = stream.line_buffering
            output = _Output(stream.detach(), stream.encoding, "replace", line_buffering=buffering)
            setattr(sys, name, output)
            setattr(sys, f"__{name}__", output)


def say(text: str) -> None:
    """Print one line, as it is, at once."""
    print(text, flush=True)


def count(number: int, noun: str) -> str:
    """Such as "1 trial" and "1,200 trials"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def brief(value: str) -> str:
    """The text of a value, with four digits if it is a number that was drawn from an interval."""
    try:
        return value if len(value) <= 8 else f"{float(value):.4g}"
    except ValueError:
        return value


class Track(Protocol):
    """Something whose progress is shown."""

    def advance(self, n: int, note: str = "") -> None:
        """Say that `n` more of the total are done, and how it goes."""


@contextmanager
def track(total: int | None, description: str, each: bool = False) -> Iterator[Track]:
    """Show the progress of `total` steps (None: not known): off a terminal, a line each tenth or 5 s."""
    if not sys.stdout.isatty():
        yield _Lines(total, description, each)
        return
    # rich costs 0.1 s, which a log need not pay.
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    text, note = (TextColumn(f"{{task.{part}}}", markup=False) for part in ("description", "fields[note]"))
    with Progress(text, BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), note) as progress:
        yield _Bar(progress, progress.add_task(description, total=total, note=""))


class _Lines:
    def __init__(self, total: int | None, description: str, each: bool) -> None:
        self._total, self._description, self._each = total, description, each
        self._done, self._tenths, self._last = 0, 0, time.monotonic()

    def advance(self, n: int, note: str = "") -> None:
        self._done += n
        tenths, now = 10 * self._done // (self._total or sys.maxsize), time.monotonic()
        if self._each or tenths > self._tenths or now - self._last >= _SECONDS_BETWEEN_LINES:
            self._tenths, self._last = tenths, now
            of = f" of {self._total:,}" if self._total else ""
            say(f"{self._description} {self._done:,}{of}{': ' if note else ''}{note}")


class _Bar:
    def __init__(self, progress: "Progress", task: "TaskID") -> None:
        self._progress, self._task = progress, task

    def advance(self, n: int, note: str = "") -> None:
        self._progress.update(self._task, advance=n, note=note)
