"""Confusion matrix: how many images of each class were predicted as each class."""

import numpy as np
from matplotlib.figure import Figure

from pipeline.plots.evaluated import Evaluated
from pipeline.plots.matrix import matrix
from pipeline.plots.style import titled
from pipeline.plots.text import accuracy_text, shortened


def draw(evaluated: Evaluated) -> Figure:
    """Draw the matrix of counts."""
    predictions = evaluated.predictions
    counts, names = predictions.confusion, predictions.classes
    subtitle = "No mistakes"
    mistaken = counts - np.diag(np.diag(counts))
    if mistaken.any():
        true, predicted = np.unravel_index(mistaken.argmax(), mistaken.shape)
        times = f"{mistaken.max():,} times" if mistaken.max() > 1 else "once"
        pair = f"{shortened(names[true])} taken for {shortened(names[predicted])}"
        subtitle = f"Most frequent mistake: {pair}, {times}"
    figure = titled(7.4, f"Confusion: {accuracy_text(predictions)}", subtitle)
    digits = len(str(counts.max()))
    matrix(
        figure,
        counts.astype(np.float64),
        [[f"{count:,}" if count else "" for count in row] for row in counts],
        names,
        ticks=[0, *(10**power for power in range(max(digits - 4, 0), digits))],
        top=int(counts.max()),
        unit="images",
    )
    return figure
