"""Images in rows, each with a caption above it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from pipeline.evaluation.metrics import Ints, Predictions
from pipeline.plots.evaluated import Evaluated
from pipeline.plots.images import displayable
from pipeline.plots.style import GREY, WIDTH, titled
from pipeline.plots.text import shortened


def gallery(evaluated: Evaluated, chosen: Ints, values: Sequence[str], title: str, subtitle: str) -> Figure:
    """The chosen images in rows; above each the true and the predicted class, and a value.

    Args:
        evaluated: n test images and the predictions of them.
        chosen: the indices of the m images to show, in their order; m is at least 1.
        values: m short texts.
        title: what is seen.
        subtitle: the numbers to remember.
    """
    image_shape = evaluated.image_shape
    most = 8 if max(map(len, evaluated.predictions.classes)) <= 6 else 6
    columns = int(np.clip(np.ceil(np.sqrt(1.5 * len(chosen))), 4, most))
    captions = _captions(evaluated.predictions, chosen, values, 104 // columns)
    # All in inches.
    above, caption, gap, margin = 0.8, 0.17 * (captions[0].count("\n") + 1), 0.08, 0.12
    column = (WIDTH - 2 * margin + gap) / columns
    width = column - gap
    height = width * image_shape[0] / image_shape[1]
    row = caption + height + gap
    figure = titled(above + -(-len(chosen) // columns) * row + 0.05, title, subtitle)
    # One pair of axes for all images takes a fifth of the time of a pair for each.
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    for position, (i, text) in enumerate(zip(chosen, captions, strict=True)):
        left, top = margin + position % columns * column, above + position // columns * row + caption
        axes.text(left + width / 2, top - 0.04, text, size=9, ha="center", va="bottom")
        axes.imshow(
            displayable(evaluated.images[i], image_shape),
            cmap="gray",
            vmin=0,
            vmax=255,
            interpolation="nearest",
            extent=(left, left + width, top + height, top),
        )
    axes.set(xlim=(0, figure.get_figwidth()), ylim=(figure.get_figheight(), 0))
    axes.set_axis_off()
    return figure


def empty(title: str, subtitle: str, text: str) -> Figure:
    """A figure that says that there is nothing to show."""
    figure = titled(2.4, title, subtitle)
    figure.text(0.5, 0.4, text, ha="center", color=GREY, size=13)
    return figure


def _captions(predictions: Predictions, chosen: Ints, values: Sequence[str], characters: int) -> list[str]:
    """Such as "4 → 9   7.31", in as few lines as fit, the same number for every image."""
    names = [shortened(name, characters - 2) for name in predictions.classes]
    captions: list[str] = []
    for layout in ("{} → {}   {}", "{} → {}\n{}", "{}\n→ {}\n{}"):
        captions = [
            layout.format(names[predictions.labels[i]], names[predictions.predicted[i]], value)
            for i, value in zip(chosen, values, strict=True)
        ]
        if all(len(line) <= characters for caption in captions for line in caption.splitlines()):
            break
    return captions
