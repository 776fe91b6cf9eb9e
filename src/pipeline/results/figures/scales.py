"""Scales and titles that the figures of a sweep share."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import MaxNLocator

from pipeline.console import brief, count
from pipeline.plots.text import shortened
from pipeline.results.leaderboard import Leaderboard, label_of, value_and_sd
from pipeline.results.report import Report

PALE = "#aab4bd"
NO_VALUE = -0.14  # the place of a missing value on an axis from 0 to 1
_MOST_LEVELS = 8  # up to so many different values, each has a tick
_NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")


@dataclass(frozen=True)
class Scale:
    """The places of values on an axis from 0 to 1, and its labelled ticks."""

    at: Mapping[Any, float]
    ticks: Sequence[tuple[float, str]]
    evenly: bool = False  # whether the places are evenly spaced, not by size

    def place(self, value: Any) -> float:
        """Return the place of a value; NO_VALUE if it has none."""
        return self.at.get(value, NO_VALUE)

    def fan(self, values: Sequence[Any]) -> list[float]:
        """Return the places of the values, with equal values spread side by side in their order."""
        if not self.evenly:
            return [self.place(value) for value in values]
        seen, times = Counter[Any](), Counter(values)
        places = []
        for value in values:
            step = min(0.6 / max(len(self.at), 1) / times[value], 0.025) if value in self.at else 0
            places.append(self.place(value) + step * (seen[value] - (times[value] - 1) / 2))
            seen[value] += 1
        return places


def scale_of(report: Report, key: str, values: Sequence[str | None]) -> Scale:
    """Return the scale of a hyperparameter: by size for many numbers, else with one step for each value."""
    texts = list(dict.fromkeys(value for value in values if value is not None))
    if not texts:
        return Scale({}, [])
    space = report.space.get(key)
    try:
        numbers = {text: float(text) for text in texts}
        are_sizes = len(texts) > _MOST_LEVELS and all(map(math.isfinite, numbers.values()))
    except ValueError:
        are_sizes = False
    if are_sizes:
        low, high = min(numbers.values()), max(numbers.values())
        return _numbers(numbers, low > 0 and ("log" in str(space) or high > 100 * low), "{:g}".format)
    # Sorted by the numbers in the texts, as a person would.
    texts.sort(key=lambda text: ([float(number) for number in _NUMBER.findall(text)], text))
    if isinstance(space, list) and not all(map(_NUMBER.search, texts)):
        texts.sort(key=lambda text: space.index(text) if text in space else len(space))
    at = {text: (place + 0.5) / len(texts) for place, text in enumerate(texts)}
    every = -(-len(texts) // 24)
    return Scale(at, [(at[text], brief(text)) for text in texts[::every]], evenly=True)


def result_scale(objective: str, values: Sequence[float | None]) -> Scale:
    """Return the scale of an objective; for an accuracy, a scale of the errors, whose ratios matter."""
    distinct = sorted({value for value in values if value is not None})
    is_accuracy = objective == "val_accuracy"
    costs = {value: 1 - value if is_accuracy else value for value in distinct}
    low, high = (min(costs.values()), max(costs.values())) if costs else (0, 0)
    write = (lambda cost: f"{100 * (1 - cost):.6g} %") if is_accuracy else "{:,g}".format
    scale = _numbers(costs, low > 0 and high > 4 * low, write)
    if not is_accuracy:
        return scale
    return Scale(
        {value: 1 - place for value, place in scale.at.items()},
        [(1 - place, text) for place, text in scale.ticks],
    )


def _numbers(values: Mapping[Any, float], logarithmic: bool, write: Callable[[float], str]) -> Scale:
    """Return a linear or logarithmic scale with round ticks; a single number is in the middle."""
    low, high = (min(values.values()), max(values.values())) if values else (0.0, 1.0)
    if low == high:
        return Scale(dict.fromkeys(values, 0.5), [(0.5, write(low))])
    turn = math.log if logarithmic else float

    def place(number: float) -> float:
        return (turn(number) - turn(low)) / (turn(high) - turn(low))

    if logarithmic:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1,) if high > 300 * low else (1, 3) if high > 30 * low else (1, 2, 3, 5)
        round_ones = [step * 10.0**decade for decade in decades for step in steps]
    else:
        round_ones = list(map(float, MaxNLocator(6).tick_values(low, high)))
    ticks = [(place(number), write(number)) for number in round_ones if low <= number <= high]
    return Scale({value: place(number) for value, number in values.items()}, ticks)


def titles(board: Leaderboard) -> tuple[str, str]:
    """Return the title and the subtitle of a figure: what it shows, and the best result."""
    assert board.best is not None
    settings = len(board.settings)
    trials = sum(len(setting.trials) for setting in board.settings)
    title = f"{board.objectives[0]} of {count(settings, 'setting')}"
    if trials != settings:
        title += f", {trials:,} trials"
    failed = sum(trial.state == "failed" for trial in board.others)
    pruned = sum(trial.state == "pruned" for trial in board.others)
    title += f"; {failed:,} failed" * bool(failed) + f"; {pruned:,} pruned" * bool(pruned)
    best = value_and_sd(board.best, board.objectives[0])
    return title, shortened(f"Best (orange): {best} with {label_of(board.best.differs)}", 100)
