"""Confusion matrix by row: which share of each class's images was predicted as each class."""

import numpy as np
from matplotlib.figure import Figure

from pipeline.console import count
from pipeline.plots.evaluated import Evaluated
from pipeline.plots.matrix import matrix
from pipeline.plots.style import titled
from pipeline.plots.text import accuracy_text, shortened


def draw(evaluated: Evaluated) -> Figure:
    """Draw the shares in percent; the row of a class without images is grey."""
    predictions = evaluated.predictions
    counts, names = predictions.confusion, predictions.classes
    totals = counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        percent = 100 * counts / totals[:, None]
    recall = np.diagonal(percent)
    hardest = int(np.nanargmin(recall))
    found = "no mistakes"
    if recall[hardest] < 100:
        of = count(totals[hardest], "test image")
        found = f"hardest class: {shortened(names[hardest])}, {recall[hardest]:.1f} % of {of} right"
    title = f"Where each class's images went: {accuracy_text(predictions)}"
    figure = titled(7.4, title, f"Percent of each row; {found}")
    matrix(
        figure,
        percent,
        [[_short_percent(share) for share in row] for row in percent],
        names,
        ticks=[0, 1, 5, 20, 50, 100],
        top=100,
        unit="% of the true class's images",
    )
    return figure


def _short_percent(percent: float) -> str:
    """Return a percentage with at most three digits; "" if it is zero or unknown."""
    if not percent > 0:
        return ""
    return "100" if percent > 99.95 else f"{percent:.1f}"
