"""A confusion matrix: square cells, with true classes as rows and predicted classes as columns."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from pipeline.evaluation.metrics import Floats
from pipeline.plots.style import INK, PALE
from pipeline.plots.text import shortened


def matrix(
    figure: Figure,
    values: Floats,
    texts: Sequence[Sequence[str]],
    names: Sequence[str],
    *,
    ticks: Sequence[float],
    top: int,
    unit: str,
) -> None:
    """Draw a matrix, coloured from 0 to `top`, with a colour scale if no text fits into the cells.

    The values are (k, k), NaN where there is no value; the texts are those in the cells.
    """
    axes = figure.subplots()
    axes.set_anchor("N")
    # On a linear scale the mistakes of a good model would all be white.
    norm = PowerNorm(0.35, vmin=0, vmax=top)
    colours = matplotlib.colormaps["Blues"].with_extremes(bad=PALE)
    picture = axes.imshow(values, cmap=colours, norm=norm)
    cell = 5.2 / len(names)  # In inches, approximately.
    longest = max(len(text) for row in texts for text in row)
    size = min(11.0, 72 * 0.85 * cell / (0.6 * max(longest, 2)))
    if size >= 6:
        dark = norm(values) > 0.6
        for row, column in np.argwhere(np.array(texts) != ""):
            axes.text(
                column,
                row,
                texts[row][column],
                ha="center",
                va="center",
                size=size,
                color="white" if dark[row, column] else INK,
                in_layout=False,  # They fit; measuring each takes long.
            )
    else:
        scale = axes.inset_axes((1.03, 0, 0.03, 1))
        bar = figure.colorbar(picture, cax=scale, label=unit, ticks=list(ticks), format="{x:,.0f}")
        bar.ax.minorticks_off()
        bar.outline.set_visible(False)
    _name_classes(axes, names, cell)
    axes.set(xlabel="predicted class", ylabel="true class")


def _name_classes(axes: Axes, names: Sequence[str], cell: float) -> None:
    """Label both axes with as many of the class names as can be read."""
    every = -(-len(names) // 34)
    shown = range(0, len(names), every)
    labels = [shortened(names[i]) for i in shown]
    size = 10 if len(names) <= 20 else 8
    widest = max(map(len, labels)) * 0.6 * size / 72
    rotation = 0 if widest < cell * every else 45 if len(labels) <= 20 else 90
    axes.set_yticks(shown, labels, size=size)
    axes.set_xticks(
        shown,
        labels,
        size=size,
        rotation=rotation,
        ha="right" if rotation == 45 else "center",
        rotation_mode="anchor" if rotation == 45 else "default",
    )
    axes.tick_params(length=0 if every == 1 else 3)
    for spine in axes.spines.values():
        spine.set_visible(False)
