"""What people see while a stage runs: bars at a terminal, a few plain lines in a log."""

import io
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SECONDS_BETWEEN_LINES = 5.0


class _Output(io.TextIOWrapper):
    """A stream whose reader may go, as `head` does: what follows is written nowhere."""

    reader_left = False

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
        self.reader_left = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def outlive_readers() -> None:
    """Have this process go on when the pipe that it writes to is closed, or can't take a character."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            stream.flush()
            # A buffer of its own: the old one may have begun with a file where there is a pipe now.
            buffer = open(stream.fileno(), "wb", closefd=False)  # noqa: SIM115 (for as long as the process)
            buffering = stream.line_buffering
            setattr(sys, name, _Output(buffer, stream.encoding, "replace", line_buffering=buffering))


def reader_left() -> bool:
    """Whether nobody reads the standard output any more: a command that only prints may end."""
    return getattr(sys.stdout, "reader_left", False)


def say(text: str) -> None:
    """Print one line, as it is, at once."""
    print(text, flush=True)


def say_markdown(text: str) -> None:
    """Print Markdown: laid out at a terminal, as it is in a log."""
    if not sys.stdout.isatty():
        say(text.rstrip())
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))


def warn(text: str) -> None:
    """Print one line to standard error: the work goes on, but not as was asked."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of aligned columns, as wide as the terminal; only the first column is never folded."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for number, column in enumerate(columns):
        shown.add_column(Text(column), overflow="fold", no_wrap=number == 0)
    for row in rows:
        shown.add_row(*(Text(str(value)) for value in row))
    text = io.StringIO()
    Console(file=text, width=terminal_width(), color_system=None).print(shown)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def terminal_width() -> int:
    """In characters; in a log there is no limit, and lines stay readable."""
    return shutil.get_terminal_size((140, 24)).columns


def count(number: int, noun: str) -> str:
    """Such as "1 trial" and "1,200 trials"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def brief(value: str) -> str:
    """The text of a value, with four digits if it is a number that was drawn from an interval."""
    try:
        return value if len(value) <= 8 else f"{float(value):.4g}"
    except ValueError:
        return value


class Every:
    """Says when so many seconds have passed since it last did; None: never."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds, self._last = seconds, time.monotonic()

    @property
    def due(self) -> bool:
        """Whether they have passed."""
        return self.seconds is not None and time.monotonic() - self._last >= self.seconds

    def restart(self) -> None:
        """Count anew."""
        self._last = time.monotonic()


class Track(Protocol):
    """Something whose progress is shown."""

    def advance(self, n: int, note: str = "") -> None:
        """Say that `n` more of the total are done, and how it goes."""


@contextmanager
def track(total: int | None, description: str) -> Iterator[Track]:
    """Show the progress of `total` steps (None: not known): off a terminal, a line each tenth or 5 s."""
    if not sys.stdout.isatty():
        yield _Lines(total, description)
        return
    with _bars() as progress:
        yield _Bar(progress, progress.add_task(description, total=total, note=""))


@contextmanager
def on_stderr(description: str) -> Iterator[Track]:
    """Show how many there were so far, while the results go to standard output."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:,.0f}"), TimeElapsedColumn())
    console = Console(stderr=True)
    # Left as it is, rich would send standard output to the terminal too, and nothing to its file.
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as progress:
        yield _Bar(progress, progress.add_task(description, total=None, note=""))


class EpochTrack:
    """A training whose progress is shown: by a bar, or off a terminal by a line for each epoch."""

    def __init__(self, total: int, steps: int, bars: "Progress | None" = None) -> None:
        self._total, self._steps, self._bars = total, steps, bars
        self._task = bars.add_task(f"Epoch 1 of {total}", total=total, note="") if bars else None

    def advance(self, steps: int) -> None:
        """Say that the epoch is so many steps further."""
        if self._bars and self._task is not None:
            self._bars.update(self._task, advance=steps / self._steps)

    def end_epoch(self, number: int, note: str) -> None:
        """Say that epoch `number` has ended, and how."""
        if self._bars and self._task is not None:
            description = f"Epoch {min(number + 1, self._total)} of {self._total}"
            self._bars.update(self._task, completed=number, description=description, note=note)
        else:
            say(f"Epoch {number} of {self._total}: {note}")


@contextmanager
def track_epochs(total: int, steps: int) -> Iterator[EpochTrack]:
    """Show the progress of `total` epochs of `steps` steps each: off a terminal, a line for each epoch."""
    if not sys.stdout.isatty():
        yield EpochTrack(total, steps)
        return
    with _bars() as progress:
        yield EpochTrack(total, steps, progress)


def _bars() -> "Progress":
    # rich costs 0.1 s, which a log need not pay.
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    text, note = (TextColumn(f"{{task.{part}}}", markup=False) for part in ("description", "fields[note]"))
    columns = (text, BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), note)
    # Left as it is, rich would send to the terminal what goes to a file.
    return Progress(*columns, redirect_stderr=sys.stderr.isatty())


class _Lines:
    def __init__(self, total: int | None, description: str) -> None:
        self._total, self._description = total, description
        self._done, self._tenths, self._every = 0, 0, Every(_SECONDS_BETWEEN_LINES)

    def advance(self, n: int, note: str = "") -> None:
        self._done += n
        tenths = 10 * self._done // (self._total or sys.maxsize)
        if tenths > self._tenths or self._every.due:
            self._tenths = tenths
            self._every.restart()
            of = f" of {self._total:,}" if self._total else ""
            say(f"{self._description} {self._done:,}{of}{': ' if note else ''}{note}")


class _Bar:
    def __init__(self, progress: "Progress", task: "TaskID") -> None:
        self._progress, self._task = progress, task

    def advance(self, n: int, note: str = "") -> None:
        self._progress.update(self._task, advance=n, note=note)
