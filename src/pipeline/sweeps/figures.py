"""The pictures of a sweep: PNG files as wide as MLflow shows them, the same bytes for the same results."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from pipeline.console import brief
from pipeline.evaluation.style import BLUE, DPI, GREY, INK, ORANGE, STYLE, WIDTH, titled
from pipeline.sweeps.leaderboard import Leaderboard, label_of, rank, short_names, value_and_sd
from pipeline.sweeps.report import SIGN, Report

_MOST_LEVELS = 8  # so many different values have a tick each
_NOTHING = -0.14  # where on an axis from 0 to 1 lies what has no value
_PALE = "#aab4bd"
_NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")
# From bad to good; even the worst is seen on white.
_COLOURS = LinearSegmentedColormap.from_list("results", ["#c9d5e0", "#86acd0", BLUE, "#0f3557"])


def draw(folder: Path, report: Report) -> None:
    """Write parallel_coordinates.png and by_hyperparameter.png into `folder`, if any trial has a result."""
    board = rank(report)
    if board.best is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    # The reset keeps a user's matplotlibrc out of the files.
    with matplotlib.style.context(STYLE, after_reset=True):
        figures = {
            "parallel_coordinates": parallel_coordinates(report, board),
            "by_hyperparameter": by_hyperparameter(report, board),
        }
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})


def parallel_coordinates(report: Report, board: Leaderboard) -> Figure:
    """A line for each setting, through its values to what it reached; dotted if it reached nothing."""
    points = _points(board)
    keys = board.keys or ("seed",)
    scales = [_scale(report, key, [point.differs.get(key) for point in points]) for key in keys]
    results = [
        _result_scale(name, [point.results.get(name) for point in points]) for name in board.objectives
    ]
    figure = titled(5.0, *_titles(board))
    axes = figure.subplots()
    columns = [
        scale.fan([point.differs.get(key) for point in points])
        for scale, key in zip(scales, keys, strict=True)
    ]
    columns += [
        [scale.place(point.results.get(name)) for point in points]
        for scale, name in zip(results, board.objectives, strict=True)
    ]
    for number, places in enumerate(zip(*columns, strict=True)):
        result = places[len(keys)]
        has_result = result != _NOTHING
        goodness = result if SIGN[board.objectives[0]] > 0 else 1 - result
        is_best = number == len(points) - 1
        axes.plot(
            places,
            color=ORANGE if is_best else _COLOURS(goodness) if has_result else _PALE,
            lw=2.6 if is_best else 1.4 if has_result else 1,
            ls="-" if has_result else ":",
            alpha=1 if is_best or len(points) < 60 else 0.7,
            solid_joinstyle="round",
        )
    missing = {x for x, places in enumerate(columns) if min(places) < 0}
    for x, scale in enumerate([*scales, *results]):
        is_result = x >= len(keys)
        nothing = [(_NOTHING, "no result" if is_result else "not set")] if x in missing else []
        _label_upright(axes, x, [*nothing, *scale.ticks], right=is_result)
    names = [*short_names(keys).values(), *board.objectives]
    size = 10 if len(names) <= 8 else 8.5
    turned: dict[str, Any] = {"rotation": 25, "ha": "left", "rotation_mode": "anchor"}
    axes.xaxis.tick_top()
    axes.set_xticks(
        range(len(names)),
        names,
        size=size,
        weight="bold",
        **(turned if max(map(len, names)) * len(names) * size > 750 else {}),
    )
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.set(xlim=(-0.4, len(names) - 1 + 0.4), ylim=((_NOTHING if missing else 0) - 0.04, 1.02))
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _label_upright(axes: Axes, x: int, ticks: Sequence[tuple[float, str]], right: bool) -> None:
    """Draw an axis at `x`, its values beside it, as many as have room."""
    axes.plot([x, x], [0, 1], color=GREY, lw=1, zorder=10)
    last = -math.inf
    for place, text in sorted(ticks):
        if place - last < 0.045:
            continue
        last = place
        axes.plot(x, place, marker="_", color=GREY, ms=7, zorder=10)
        axes.annotate(
            _short(text, 16),
            (x, place),
            ((5 if right else -5), 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            size=8.5,
            zorder=11,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def by_hyperparameter(report: Report, board: Leaderboard) -> Figure:
    """What each trial reached by each hyperparameter, with the medians; crosses: no result."""
    keys, objective = board.keys or ("seed",), board.objectives[0]
    trials = [trial for setting in reversed(board.settings) for trial in reversed(setting.trials)]
    ended = [trial for trial in board.others if trial.state in ("failed", "pruned", "stopped")]
    result = _result_scale(objective, [trial.values.get(objective) for trial in trials])
    across = min(len(keys), 3)
    rows = -(-len(keys) // across)
    figure = titled(0.9 + 2.7 * rows, *_titles(board))
    panels = figure.subplots(rows, across, sharey=True, squeeze=False).ravel()
    for axes in panels[len(keys) :]:
        axes.set_axis_off()
    ticks = [*result.ticks, *([(_NOTHING, "no result")] if ended else [])]
    best = board.best.trials if board.best else ()
    for axes, (key, name) in zip(panels, short_names(keys).items(), strict=False):
        scale = _scale(report, key, [trial.differs.get(key) for trial in (*trials, *ended)])
        found: dict[float, list[float]] = {}
        for trial in trials:
            x, y = scale.place(trial.differs.get(key)), result.place(trial.values.get(objective))
            if y >= 0:
                found.setdefault(x, []).append(y)
            marks: dict[str, Any] = {"color": ORANGE, "ms": 6} if trial in best else {"color": BLUE, "ms": 5}
            axes.plot(x, y, "o", mec="white", mew=0.5, alpha=0.85, **marks)
        for trial in ended:
            axes.plot(scale.place(trial.differs.get(key)), _NOTHING, "x", ms=4, color=_PALE)
        if len(found) < len(trials) and scale.evenly:
            half = min(0.25 / scale.levels, 0.05)
            for x, ys in found.items():
                axes.hlines(median(ys), x - half, x + half, color=INK, lw=2, zorder=5)
        _label_level(axes, scale, WIDTH / across)
        axes.set(title=name, xlim=(-0.04, 1.04), ylim=(_NOTHING * 1.4 if ended else -0.06, 1.06))
        axes.set_yticks([place for place, _ in ticks], [text for _, text in ticks])
        axes.grid(visible=True)
    for axes in panels[::across]:
        axes.set_ylabel(objective)
    return figure


def _label_level(axes: Axes, scale: "_Scale", inches: float) -> None:
    """Write as many of the values below the panel as have room."""
    character = 0.085 / inches
    texts = [(place, _short(text, 14)) for place, text in sorted(scale.ticks)]
    slanted = sum(len(text) + 1 for _, text in texts) * character > 1.1
    shown: list[tuple[float, str]] = []
    for place, text in texts:
        needed = 0.07 if slanted else (len(text) + 2) * character
        if not shown or place - shown[-1][0] >= needed:
            shown.append((place, text))
    axes.set_xticks(
        [place for place, _ in shown],
        [text for _, text in shown],
        size=9,
        rotation=35 if slanted else 0,
        ha="right" if slanted else "center",
        rotation_mode="anchor" if slanted else "default",
    )


# --- where values lie --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Point:
    """A line of the parallel coordinates."""

    differs: Mapping[str, str]
    results: Mapping[str, float]


def _points(board: Leaderboard) -> list[_Point]:
    """The settings from the worst to the best, after the trials that ended without a result."""
    points = [
        _Point(trial.differs, {}) for trial in board.others if trial.state in ("failed", "pruned", "stopped")
    ]
    for setting in reversed(board.settings):
        if board.keys:
            means = {name: setting.mean(name) for name in board.objectives}
            points.append(
                _Point(setting.differs, {name: mean for name, mean in means.items() if mean is not None})
            )
        else:
            points += [_Point(trial.differs, trial.values) for trial in reversed(setting.trials)]
    return points


@dataclass(frozen=True)
class _Scale:
    """Where values lie on an axis from 0 to 1, and what is written there."""

    at: Mapping[Any, float]
    ticks: Sequence[tuple[float, str]]
    evenly: bool = False

    @property
    def levels(self) -> int:
        """How many different values there are."""
        return len(self.at)

    def place(self, value: Any) -> float:
        return self.at.get(value, _NOTHING)

    def fan(self, values: Sequence[Any]) -> list[float]:
        """The places of the values, those of equal ones side by side in their order."""
        if not self.evenly:
            return [self.place(value) for value in values]
        seen, times = Counter[Any](), Counter(values)
        places = []
        for value in values:
            step = min(0.6 / max(self.levels, 1) / times[value], 0.025) if value in self.at else 0
            places.append(self.place(value) + step * (seen[value] - (times[value] - 1) / 2))
            seen[value] += 1
        return places


def _scale(report: Report, key: str, values: Sequence[str | None]) -> _Scale:
    """The scale of a hyperparameter: of sizes if its values are many numbers, else a step for each value."""
    texts = list(dict.fromkeys(value for value in values if value is not None))
    if not texts:
        return _Scale({}, [])
    space = report.space.get(key)
    try:
        numbers = {text: float(text) for text in texts}
        are_sizes = len(texts) > _MOST_LEVELS and all(map(math.isfinite, numbers.values()))
    except ValueError:
        are_sizes = False
    if are_sizes:
        low, high = min(numbers.values()), max(numbers.values())
        return _numbers(numbers, low > 0 and ("log" in str(space) or high > 100 * low), "{:g}".format)
    # In the order in which a person would write them.
    texts.sort(key=lambda text: ([float(number) for number in _NUMBER.findall(text)], text))
    if isinstance(space, list) and not all(map(_NUMBER.search, texts)):
        texts.sort(key=lambda text: space.index(text) if text in space else len(space))
    at = {text: (place + 0.5) / len(texts) for place, text in enumerate(texts)}
    every = -(-len(texts) // 24)
    return _Scale(at, [(at[text], brief(text)) for text in texts[::every]], evenly=True)


def _result_scale(objective: str, values: Sequence[float | None]) -> _Scale:
    """The scale of an objective; of accuracies it spreads the errors, which differ by their ratios."""
    found = sorted({value for value in values if value is not None})
    is_accuracy = objective == "val_accuracy"
    costs = {value: 1 - value if is_accuracy else value for value in found}
    low, high = (min(costs.values()), max(costs.values())) if costs else (0, 0)
    write = (lambda cost: f"{100 * (1 - cost):.6g} %") if is_accuracy else "{:,g}".format
    scale = _numbers(costs, low > 0 and high > 4 * low, write)
    if not is_accuracy:
        return scale
    return _Scale(
        {value: 1 - place for value, place in scale.at.items()},
        [(1 - place, text) for place, text in scale.ticks],
    )


def _numbers(values: Mapping[Any, float], logarithmic: bool, write: Callable[[float], str]) -> _Scale:
    """Numbers by size, linear or logarithmic, with round ticks; one alone lies in the middle."""
    low, high = (min(values.values()), max(values.values())) if values else (0.0, 1.0)
    if low == high:
        return _Scale(dict.fromkeys(values, 0.5), [(0.5, write(low))])
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
    return _Scale({value: place(number) for value, number in values.items()}, ticks)


def _titles(board: Leaderboard) -> tuple[str, str]:
    """What is seen, and the numbers to remember."""
    assert board.best is not None
    settings = len(board.settings)
    trials = sum(len(setting.trials) for setting in board.settings)
    title = f"{board.objectives[0]} of {settings:,} setting{'s' if settings != 1 else ''}"
    if trials != settings:
        title += f", {trials:,} trials"
    failed = sum(trial.state == "failed" for trial in board.others)
    pruned = sum(trial.state == "pruned" for trial in board.others)
    title += f"; {failed:,} failed" * bool(failed) + f"; {pruned:,} pruned" * bool(pruned)
    best = value_and_sd(board.best, board.objectives[0])
    return title, _short(f"Best (orange): {best} with {label_of(board.best.differs) or 'all seeds'}", 100)


def _short(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"
