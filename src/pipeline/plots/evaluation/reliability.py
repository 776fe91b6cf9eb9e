"""Reliability diagram: whether predictions made with 80 % confidence are right 80 % of the time."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from pipeline.console import percent
from pipeline.evaluation.metrics import calibrate, wilson
from pipeline.plots.evaluated import Evaluated
from pipeline.plots.style import GREY, INK, LIGHT_BLUE, LIGHT_ORANGE, ORANGE, titled
from pipeline.plots.text import accuracy_text


def draw(evaluated: Evaluated) -> Figure:
    """Draw the accuracy in each bin of confidence, and below it the number of predictions in the bin."""
    predictions, bins = evaluated.predictions, evaluated.settings.calibration_bins
    calibration = calibrate(predictions, bins)
    filled = calibration.counts > 0
    counts = calibration.counts[filled]
    accuracy, confidence = calibration.accuracy[filled], calibration.confidence[filled]
    centres = (np.flatnonzero(filled) + 0.5) / bins
    width, few = 1 / bins, bins <= 50
    edge = 0.8 if few else 0

    figure = titled(
        6.8,
        f"Reliability: expected calibration error {percent(calibration.error)}",
        f"Mean confidence {percent(predictions.confidence.mean())}; {accuracy_text(predictions)}",
    )
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.bar(centres, accuracy, width, color=LIGHT_BLUE, edgecolor="white", lw=edge, label="accuracy")
    above.bar(
        centres,
        confidence - accuracy,
        width,
        bottom=accuracy,
        facecolor="none" if few else LIGHT_ORANGE,
        edgecolor=ORANGE,
        hatch="////" if few else "",
        lw=edge,
        label="gap to confidence",
    )
    if few:
        low, high = wilson(np.rint(accuracy * counts).astype(np.int64), counts)
        above.vlines(centres, low, high, color=INK, lw=1.2, label="95 % interval")
    above.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1, label="perfect calibration")
    above.set(ylabel="accuracy", ylim=(0, 1.02))
    above.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    above.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=4, columnspacing=1.6)

    below.bar(centres, counts, width, color=LIGHT_BLUE, edgecolor="white", lw=edge)
    below.set(yscale="log", ylim=(0.7, max(2 * counts.max(), 15)), ylabel="images (log)")
    below.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    below.yaxis.set_minor_locator(NullLocator())
    below.set(xlabel="confidence of the prediction", xlim=(0, 1))
    below.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    for axes in (above, below):
        axes.grid(visible=True)
    return figure
