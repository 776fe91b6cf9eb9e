"""Show the progress of a sweep: a live table on a terminal, a line for each ended trial in a log."""

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from pipeline.console import say
from pipeline.results.leaderboard import label_of, short_error, text_of
from pipeline.results.report import SIGN, Report, Trial

if TYPE_CHECKING:
    from rich.table import Table

_SECONDS_BETWEEN_LOOKS = 0.5
_ROWS = 12  # how many of the ended trials a terminal shows


@contextmanager
def watching(look: Callable[[], Report], workers: int) -> Iterator[None]:
    """Show the trials, as `look` reports them, during the `with`; so many `workers` run at a time."""
    board, over = _Board(look, workers), threading.Event()

    def watch() -> None:
        while not over.wait(_SECONDS_BETWEEN_LOOKS):
            board.update()

    watcher = threading.Thread(target=watch, daemon=True)
    with board.at_terminal():
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            board.update()


class _Board:
    def __init__(self, look: Callable[[], Report], workers: int) -> None:
        self._look, self._workers = look, workers
        self._report = look()
        self._known = [trial for trial in self._report.trials if trial.state == "known"]
        self._seen = {trial.number for trial in self._known}
        self._is_terminal = sys.stdout.isatty()  # asked before Live takes the place of the stream
        self._ended: list[Trial] = []  # since the start, in the order in which they ended

    def at_terminal(self) -> AbstractContextManager[object]:
        """Show a live table inside the `with` if there is a terminal."""
        if not self._is_terminal:
            return nullcontext()
        from rich.live import Live

        # What goes to a file is not for the terminal.
        redirect = sys.stderr.isatty()
        return Live(get_renderable=self._table, refresh_per_second=2, redirect_stderr=redirect)

    def update(self) -> None:
        """Read the current state of the trials, and print a line for each that has ended since."""
        self._report = self._look()
        for trial in self._report.trials:
            if not trial.has_ended or trial.number in self._seen:
                continue
            self._seen.add(trial.number)
            self._ended.append(trial)
            if not self._is_terminal:
                line = f"{self._count()}: {label_of(trial.differs)}: {self._status(trial)}"
                say(f"{line}; {self._outlook()}" if self._outlook() else line)

    def _count(self) -> str:
        return f"{len(self._ended)} of {len(self._report.trials) - len(self._known)}"

    def _outlook(self) -> str:
        """Describe the best result so far and how long the rest will take."""
        objective = self._report.objectives[0]
        ended = [*self._known, *self._ended]
        values = [trial.values[objective] for trial in ended if objective in trial.values]
        best = max(values, key=lambda value: SIGN[objective] * value, default=None)
        parts = [] if best is None else [f"best {text_of(objective, best)}"]
        left = len(self._report.trials) - len(ended)
        # A trial that failed says nothing about how long the others take.
        took = [trial.seconds for trial in self._ended if trial.seconds and trial.state in ("done", "pruned")]
        if left and took:
            parts.append(f"about {_time(sum(took) / len(took) * math.ceil(left / self._workers))} left")
        return ", ".join(parts)

    def _table(self) -> "Table":
        from rich.table import Table
        from rich.text import Text

        running = [trial for trial in self._report.trials if trial.state == "running"]
        table = Table("trial", "values", "state", box=None, pad_edge=False, caption_justify="left")
        for trial in [*self._ended[-_ROWS:], *running]:
            table.add_row(str(trial.number), *map(Text, (label_of(trial.differs), self._status(trial))))
        table.caption = ", ".join(filter(None, (f"{self._count()} ended", self._outlook())))
        return table

    def _status(self, trial: Trial) -> str:
        if trial.state == "running":
            now = time.time()
            return f"running, {_time(max(0.0, now - (trial.start or now)))}"
        if trial.has_result:
            values = [text_of(name, trial.values.get(name)) for name in self._report.objectives]
            return ", ".join([*values, _time(trial.seconds or 0)])
        # Without its full stop, since the line goes on.
        return f"{trial.state}{': ' if trial.error else ''}{short_error(trial)}".removesuffix(".")


def _time(seconds: float) -> str:
    """Format a duration, such as "8 s", "3 min" or "2 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
