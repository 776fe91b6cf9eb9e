"""Console output: progress bars and formatted text at a terminal, a few plain lines in a log."""

import io
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SECONDS_BETWEEN_LINES = 5.0
# A section of Markdown with a chart, which a terminal would show as code.
_CHART = re.compile(r"^## .*\n(?:(?!## ).*\n)*?```mermaid\n(?:.*\n)*?```\n*", re.MULTILINE)


class _Output(io.TextIOWrapper):
    """An output stream that discards further text once its reader has gone, as `head` does."""

    reader_left = False

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._turn_off()
            return len(text)
        except OSError:
            self._turn_off(reader_left=False)
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._turn_off()
        except OSError:
            # Such as a full disk: it is reported once, not again when Python flushes its streams at the end.
            self._turn_off(reader_left=False)
            raise

    def _turn_off(self, reader_left: bool = True) -> None:
        self.reader_left = reader_left
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def outlive_readers() -> None:
    """Keep this process running if what it writes to is closed or cannot encode a character."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed from the beginning, as with >&-
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(nowhere, nowhere == number)
            setattr(sys, name, open(nowhere, "w" if number else "r", closefd=False))  # noqa: SIM115
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            stream.flush()
            # A new buffer, since the old one may have been opened for a file where there is a pipe now.
            buffer = open(stream.fileno(), "wb", closefd=False)  # noqa: SIM115 (open as long as the process runs)
            buffering = stream.line_buffering
            setattr(sys, name, _Output(buffer, stream.encoding, "replace", line_buffering=buffering))


def reader_left() -> bool:
    """Return whether nobody reads standard output any more, so that a command that only prints may end."""
    return getattr(sys.stdout, "reader_left", False)


def say(*lines: str) -> None:
    """Print lines as they are, and flush each."""
    for line in lines:
        print(line, flush=True)


def say_markdown(text: str) -> None:
    """Print Markdown: as it is in a log; rendered at a terminal, without sections that have a chart."""
    if not sys.stdout.isatty():
        say(text.rstrip())
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(_CHART.sub("", text)))


def warn(text: str) -> None:
    """Print a warning to standard error: the work goes on, but not quite as requested."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return lines of aligned columns that fit the terminal; only the first column is never wrapped."""
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
    """Return the width of the terminal in characters; 140 if there is none, so that logs stay readable."""
    return shutil.get_terminal_size((140, 24)).columns


def count(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 trial" or "1,200 trials"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable(name: str) -> str:
    """Return a name of a file or a class in one line, in which nothing controls the terminal.

    It is quoted if it begins or ends with a space, which nobody would see.
    """
    return name if name.isprintable() and name == name.strip() else repr(name)


def percent(share: float, decimals: int = 2) -> str:
    """Return a share of one as a percentage, such as "97.34 %"."""
    return f"{100 * share:.{decimals}f} %"


def brief(value: str) -> str:
    """Return a value as text; a number of more than eight characters is rounded to four digits."""
    try:
        return value if len(value) <= 8 else f"{float(value):.4g}"
    except ValueError:
        return value


class Every:
    """A timer that is due when `seconds` have passed since its start; with None it is never due."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds, self._last = seconds, time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the time has passed."""
        return self.seconds is not None and time.monotonic() - self._last >= self.seconds

    def restart(self) -> None:
        """Start counting again."""
        self._last = time.monotonic()


class Track(Protocol):
    """A task whose progress is shown."""

    def advance(self, n: int, note: str = "") -> None:
        """Report that `n` more steps are done, with a note to show next to the progress."""


@contextmanager
def track(total: int | None, description: str) -> Iterator[Track]:
    """Show the progress of `total` steps, or of an unknown number if it is None.

    In a log, print a line for each tenth of the steps or every 5 s.
    """
    if not sys.stdout.isatty():
        yield _Lines(total, description)
        return
    with _bars() as progress:
        yield _Bar(progress, progress.add_task(description, total=total, note=""))


@contextmanager
def on_stderr(description: str) -> Iterator[Track]:
    """Show the number of steps done so far on standard error, while results go to standard output."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:,.0f}"), TimeElapsedColumn())
    console = Console(stderr=True)
    # By default, rich would also show redirected standard output at the terminal, and leave its file empty.
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as progress:
        yield _Bar(progress, progress.add_task(description, total=None, note=""))


class EpochTrack:
    """The progress of a training, shown as a bar, or in a log as one line per epoch."""

    def __init__(self, total: int, steps: int, bars: "Progress | None" = None) -> None:
        self._total, self._steps, self._bars = total, steps, bars
        self._task = bars.add_task(f"Epoch 1 of {total}", total=total, note="") if bars else None

    def advance(self, steps: int) -> None:
        """Report that `steps` more steps of the epoch are done."""
        if self._bars and self._task is not None:
            self._bars.update(self._task, advance=steps / self._steps)

    def end_epoch(self, number: int, note: str) -> None:
        """Report the end of epoch `number`, with a note on its results."""
        if self._bars and self._task is not None:
            description = f"Epoch {min(number + 1, self._total)} of {self._total}"
            self._bars.update(self._task, completed=number, description=description, note=note)
        else:
            say(f"Epoch {number} of {self._total}: {note}")


@contextmanager
def track_epochs(total: int, steps: int) -> Iterator[EpochTrack]:
    """Show the progress of `total` epochs of `steps` steps each; in a log, one line per epoch."""
    if not sys.stdout.isatty():
        yield EpochTrack(total, steps)
        return
    with _bars() as progress:
        yield EpochTrack(total, steps, progress)


def _bars() -> "Progress":
    # Importing rich takes 0.1 s, and a log does not need it.
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    text, note = (TextColumn(f"{{task.{part}}}", markup=False) for part in ("description", "fields[note]"))
    columns = (text, BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), note)
    # By default, rich would show redirected standard error at the terminal instead of writing it to its file.
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
