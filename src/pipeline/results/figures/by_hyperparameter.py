"""Draw the result of each trial by the value of each hyperparameter."""

from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.plots.style import BLUE, INK, ORANGE, WIDTH, titled
from pipeline.plots.text import shortened
from pipeline.results.figures.scales import NO_VALUE, PALE, Scale, result_scale, scale_of, titles
from pipeline.results.leaderboard import Leaderboard, short_names
from pipeline.results.report import Report


def by_hyperparameter(report: Report, board: Leaderboard) -> Figure:
    """Draw a panel for each hyperparameter with the result of each trial and medians; crosses: no result."""
    keys, objective = board.keys or ("seed",), board.objectives[0]
    trials = [trial for setting in reversed(board.settings) for trial in reversed(setting.trials)]
    ended = [trial for trial in board.others if trial.has_ended]
    result = result_scale(objective, [trial.values.get(objective) for trial in trials])
    across = min(len(keys), 3)
    rows = -(-len(keys) // across)
    figure = titled(0.9 + 2.7 * rows, *titles(board))
    panels = figure.subplots(rows, across, sharey=True, squeeze=False).ravel()
    for axes in panels[len(keys) :]:
        axes.set_axis_off()
    ticks = [*result.ticks, *([(NO_VALUE, "no result")] if ended else [])]
    best = board.best.trials if board.best else ()
    for axes, (key, name) in zip(panels, short_names(keys).items(), strict=False):
        scale = scale_of(report, key, [trial.differs.get(key) for trial in (*trials, *ended)])
        by_place: dict[float, list[float]] = {}
        for trial in trials:
            x, y = scale.place(trial.differs.get(key)), result.place(trial.values.get(objective))
            if y >= 0:
                by_place.setdefault(x, []).append(y)
            marks: dict[str, Any] = {"color": ORANGE, "ms": 6} if trial in best else {"color": BLUE, "ms": 5}
            axes.plot(x, y, "o", mec="white", mew=0.5, alpha=0.85, **marks)
        for trial in ended:
            axes.plot(scale.place(trial.differs.get(key)), NO_VALUE, "x", ms=4, color=PALE)
        if len(by_place) < len(trials) and scale.evenly:
            half = min(0.25 / len(scale.at), 0.05)
            for x, ys in by_place.items():
                axes.hlines(median(ys), x - half, x + half, color=INK, lw=2, zorder=5)
            name += " (bars: medians)"
        _label_level(axes, scale, WIDTH / across)
        axes.set(title=name, xlim=(-0.04, 1.04), ylim=(NO_VALUE * 1.4 if ended else -0.06, 1.06))
        axes.set_yticks([place for place, _ in ticks], [text for _, text in ticks])
        axes.grid(visible=True)
    for axes in panels[::across]:
        axes.set_ylabel(objective)
    return figure


def _label_level(axes: Axes, scale: Scale, inches: float) -> None:
    """Label the values below the panel, as many as there is room for."""
    character = 0.085 / inches
    texts = [(place, shortened(text, 14)) for place, text in sorted(scale.ticks)]
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
