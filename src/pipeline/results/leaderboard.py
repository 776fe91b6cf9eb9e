"""The leaderboard of a sweep: settings ranked by their mean over the seeds, so that no lucky seed wins."""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from pipeline.console import brief, count, percent, say
from pipeline.results.report import SIGN, Report, Trial

if TYPE_CHECKING:
    from rich.table import Table

_MOST_LINES = 20  # printed at most, of settings and of trials without a result


@dataclass(frozen=True)
class Setting:
    """Trials that differ only in their seed and that all have a result."""

    differs: Mapping[str, str]  # the values of the swept keys, without the seed
    trials: tuple[Trial, ...]  # best first
    on_front: bool  # whether no other setting is better in one objective and as good in all others

    def mean(self, objective: str) -> float | None:
        """Return the mean over the seeds, or None if a trial lacks the value."""
        values = self._values(objective)
        return fmean(values) if values else None

    def sd(self, objective: str) -> float | None:
        """Return the sample standard deviation over the seeds, or None for fewer than two."""
        values = self._values(objective)
        return stdev(values) if len(values) > 1 else None

    def _values(self, objective: str) -> list[float]:
        values = [trial.values[objective] for trial in self.trials if objective in trial.values]
        return values if len(values) == len(self.trials) else []


@dataclass(frozen=True)
class Leaderboard:
    """The ranked settings, best first, and the trials without a result."""

    objectives: tuple[str, ...]
    keys: tuple[str, ...]  # the swept keys, without the seed
    settings: tuple[Setting, ...]
    others: tuple[Trial, ...]

    @property
    def best(self) -> Setting | None:
        """The best setting, or None if none has a result."""
        return self.settings[0] if self.settings else None


def rank(report: Report) -> Leaderboard:
    """Rank the settings by the mean of the first objective; ties are broken by the next ones."""
    keys = tuple(dict.fromkeys(key for trial in report.trials for key in trial.differs if key != "seed"))
    groups: dict[tuple[str | None, ...], dict[str, Trial]] = {}
    for trial in report.trials:
        if trial.has_result:
            # A trial that was requested twice counts once.
            groups.setdefault(tuple(map(trial.differs.get, keys)), {})[trial.key] = trial
    ranked = []
    for trials in groups.values():
        first, *_ = trials.values()
        differs = {key: value for key, value in first.differs.items() if key != "seed"}
        best_first = sorted(
            trials.values(), key=lambda trial: _score(trial.values.get, report.objectives), reverse=True
        )
        setting = Setting(differs, tuple(best_first), on_front=False)
        ranked.append((_score(setting.mean, report.objectives), setting))
    ranked.sort(key=lambda scored: scored[0], reverse=True)
    settings = tuple(
        replace(setting, on_front=not any(_beats(other, own) for other, _ in ranked))
        for own, setting in ranked
    )
    others = tuple(trial for trial in report.trials if not trial.has_result)
    return Leaderboard(report.objectives, keys, settings, others)


def _score(value_of: Callable[[str], float | None], objectives: Sequence[str]) -> tuple[float, ...]:
    """Return the values, negated where less is better; a missing value counts as the worst."""
    values = [(objective, value_of(objective)) for objective in objectives]
    return tuple(float("-inf") if value is None else SIGN[name] * value for name, value in values)


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether `one` Pareto-dominates `other`."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


# --- formatting --------------------------------------------------------------------------------


def show(board: Leaderboard) -> None:
    """Print the leaderboard, as a table on a terminal and as lines in a log."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(_table(board))
        say(*_without_result(board))
    else:
        say(*lines(board))


def lines(board: Leaderboard) -> list[str]:
    """Return the leaderboard as plain lines."""
    shown = []
    for place, setting in enumerate(board.settings[:_MOST_LINES], start=1):
        results = ", ".join(f"{name} {value_and_sd(setting, name)}" for name in board.objectives)
        label = label_of(setting.differs)
        notes = f" ({count(len(setting.trials), 'seed')})" * _has_seeds(board)
        notes += " [Pareto]" * _marks_front(board, setting)
        shown.append(f"{place:>3}. {label}: {results}{notes}; run {setting.trials[0].run}")
    return shown + _without_result(board)


def next_steps(board: Leaderboard) -> list[str]:
    """Return the commands that adopt the best setting and compare it with the next one of another run."""
    if not board.best:
        return []
    # Settings that differ only in the evaluation have one run, which can't be compared with itself.
    runs = dict.fromkeys(shlex.quote(str(setting.trials[0].run)) for setting in board.settings)
    first, *others = runs
    steps = [f"Next: pipeline adopt {first}"]
    return [*steps, *(f"      pipeline compare {first} {other}" for other in others[:1])]


def caution(board: Leaderboard) -> str:
    """Return a sentence that warns of ranks that can't be compared, or "" if all can.

    If the settings have different validation images, the one with the easiest images would win.
    """
    measured = {frozenset(trial.validation for trial in setting.trials) for setting in board.settings}
    if len(measured) < 2 or all(name == "parameters" for name in board.objectives):
        return ""
    return (
        "The settings were not measured on the same validation images: their ranks can't be compared. Other "
        "data make other images, and so do most keys of preprocess."
    )


def short_error(trial: Trial) -> str:
    """Return the beginning of a trial's error; the sweep ends by printing all of it."""
    return shorten(trial.error, 100, placeholder=" …")


def _without_result(board: Leaderboard) -> list[str]:
    """Describe the settings that were left out, and the trials that failed, were pruned or never ran."""
    shown = []
    if (more := len(board.settings) - _MOST_LINES) > 0:
        shown.append(f"     and {count(more, 'more setting')}; MLflow shows all.")
    ended = [trial for trial in board.others if trial.has_ended]
    for trial in ended[:_MOST_LINES]:
        shown.append(
            f"{trial.state}: {label_of(trial.differs)}{': ' if trial.error else ''}{short_error(trial)}"
        )
    if (more := len(ended) - _MOST_LINES) > 0:
        shown.append(f"     and {count(more, 'more trial')} without a result.")
    if waiting := len(board.others) - len(ended):
        shown.append(f"{waiting:,} of the trials did not finish.")
    return shown


def _table(board: Leaderboard) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", justify="right")
    for name in short_names(board.keys).values():
        table.add_column(Text(name), overflow="fold")
    for name in board.objectives:
        table.add_column(name, justify="right", no_wrap=True)
    if _has_seeds(board):
        table.add_column("seeds", justify="right")
    table.add_column("best run", overflow="fold")
    for place, setting in enumerate(board.settings[:_MOST_LINES], start=1):
        mark = "★ " if _marks_front(board, setting) else ""
        cells = [f"{mark}{place}", *(brief(setting.differs.get(key, "")) for key in board.keys)]
        cells += [value_and_sd(setting, name) for name in board.objectives]
        cells += [str(len(setting.trials))] * _has_seeds(board) + [setting.trials[0].run or ""]
        table.add_row(*map(Text, cells), style="bold" if place == 1 else None)
    if len(board.objectives) > 1:
        table.caption = "★ on the Pareto front: none is better in one objective and as good in the others"
    return table


def rows(board: Leaderboard) -> list[dict[str, Any]]:
    """Return the whole leaderboard as the rows of a table, with the trials without a result last."""
    names = (
        "rank",
        *board.keys,
        *(f"{name}{end}" for name in board.objectives for end in ("", "_sd")[: 1 + _varies(name)]),
        *(["pareto"] if len(board.objectives) > 1 else []),
        *("seeds", "best run", "state", "error"),
    )
    found: list[dict[str, Any]] = []
    for place, setting in enumerate(board.settings, start=1):
        results = {name: setting.mean(name) for name in board.objectives}
        spreads = {f"{name}_sd": setting.sd(name) for name in board.objectives}
        rest = {"pareto": setting.on_front, "seeds": len(setting.trials), "best run": setting.trials[0].run}
        found.append({"rank": place, **setting.differs, **results, **spreads, **rest, "state": "done"})
    for trial in board.others:
        about = {"best run": trial.run, "state": trial.state, "error": trial.error or None}
        found.append({**trial.differs, **about})
    return [{name: row.get(name) for name in names} for row in found]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Map each key to its last part if that is unique: train.learning_rate to learning_rate."""
    leaves = [key.rpartition(".")[2] for key in keys]
    return {key: leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(keys, leaves, strict=True)}


def label_of(differs: Mapping[str, str]) -> str:
    """Return what differs as one line, such as "learning_rate=0.01, seed=0", or that nothing does."""
    names = short_names(list(differs))
    return ", ".join(f"{names[key]}={brief(value)}" for key, value in differs.items()) or "the only setting"


def value_and_sd(setting: Setting, objective: str) -> str:
    """Format the mean and the standard deviation over the seeds, such as "97.22 % ± 0.31"."""
    mean, sd = setting.mean(objective), setting.sd(objective)
    text = text_of(objective, mean)
    if sd is None or not _varies(objective):
        return text
    return f"{text} ± {text_of(objective, sd).removesuffix(' %')}"


def text_of(objective: str, value: float | None) -> str:
    """Format a value of an objective for display."""
    if value is None:
        return "–"
    if objective == "val_accuracy":
        return percent(value)
    return f"{value:,.0f}" if objective == "parameters" else f"{value:.4f}"


def _varies(objective: str) -> bool:
    """Return whether the objective depends on the seed."""
    return objective != "parameters"


def _has_seeds(board: Leaderboard) -> bool:
    return any(len(setting.trials) > 1 for setting in board.settings)


def _marks_front(board: Leaderboard, setting: Setting) -> bool:
    return len(board.objectives) > 1 and setting.on_front
