"""Draw parallel coordinates: a line for each setting, through its values to its results."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from pipeline.plots.style import BLUE, GREY, ORANGE, titled
from pipeline.plots.text import shortened
from pipeline.results.figures.scales import NO_VALUE, PALE, result_scale, scale_of, titles
from pipeline.results.leaderboard import Leaderboard, short_names
from pipeline.results.report import SIGN, Report

# From bad to good; even the worst is visible on white.
_COLOURS = LinearSegmentedColormap.from_list("results", ["#c9d5e0", "#86acd0", BLUE, "#0f3557"])


def parallel_coordinates(report: Report, board: Leaderboard) -> Figure:
    """Draw a line for each setting, through its values to its results; dotted if it has no result."""
    lines = _lines(board)
    keys = board.keys or ("seed",)
    values = [[differs.get(key) for differs, _ in lines] for key in keys]
    reached = [[results.get(name) for _, results in lines] for name in board.objectives]
    scales = [scale_of(report, key, column) for key, column in zip(keys, values, strict=True)]
    results = [result_scale(name, column) for name, column in zip(board.objectives, reached, strict=True)]
    figure = titled(5.0, *titles(board))
    axes = figure.subplots()
    columns = [scale.fan(column) for scale, column in zip(scales, values, strict=True)]
    columns += [list(map(scale.place, column)) for scale, column in zip(results, reached, strict=True)]
    for number, places in enumerate(zip(*columns, strict=True)):
        result = places[len(keys)]
        has_result = result != NO_VALUE
        goodness = result if SIGN[board.objectives[0]] > 0 else 1 - result
        is_best = number == len(lines) - 1
        axes.plot(
            places,
            color=ORANGE if is_best else _COLOURS(goodness) if has_result else PALE,
            lw=2.6 if is_best else 1.4 if has_result else 1,
            ls="-" if has_result else ":",
            alpha=1 if is_best or len(lines) < 60 else 0.7,
            solid_joinstyle="round",
        )
    missing = {x for x, places in enumerate(columns) if min(places) < 0}
    for x, scale in enumerate([*scales, *results]):
        is_result = x >= len(keys)
        nothing = [(NO_VALUE, "no result" if is_result else "not set")] if x in missing else []
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
    axes.set(xlim=(-0.4, len(names) - 1 + 0.4), ylim=((NO_VALUE if missing else 0) - 0.04, 1.02))
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _label_upright(axes: Axes, x: int, ticks: Sequence[tuple[float, str]], right: bool) -> None:
    """Draw an axis at `x`, and label its values, as many as there is room for."""
    axes.plot([x, x], [0, 1], color=GREY, lw=1, zorder=10)
    last = -math.inf
    for place, text in sorted(ticks):
        if place - last < 0.045:
            continue
        last = place
        axes.plot(x, place, marker="_", color=GREY, ms=7, zorder=10)
        axes.annotate(
            shortened(text, 16),
            (x, place),
            ((5 if right else -5), 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            size=8.5,
            zorder=11,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def _lines(board: Leaderboard) -> list[tuple[Mapping[str, str], Mapping[str, float | None]]]:
    """Return values and results: trials without a result, then the settings from the worst to the best."""
    found: list[tuple[Mapping[str, str], Mapping[str, float | None]]] = [
        (trial.differs, {}) for trial in board.others if trial.has_ended
    ]
    for setting in reversed(board.settings):
        if board.keys:
            found.append((setting.differs, {name: setting.mean(name) for name in board.objectives}))
        else:
            found += [(trial.differs, trial.values) for trial in reversed(setting.trials)]
    return found
