"""The sample figure: the first training images of each class."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.plots.rows import displayable
from pipeline.plots.text import shortened

STYLE: dict[str, object] = {"text.parse_math": False}  # A class may be called $x$.
_COLUMNS = 10
_MAX_ROWS = 40
_LONGEST = 40  # characters of a name
_WIDTH = 9.0  # inches, at matplotlib's 100 dots per inch


def draw(
    images: NDArray[np.uint8],
    labels: NDArray[np.int32],
    image_shape: tuple[int, ...],
    classes: Sequence[str],
) -> Figure:
    """Draw a row for each of at most 40 classes, with its name and its first ten images.

    Args:
        images: uint8 (n, pixels).
        labels: int32 (n,).
        image_shape: (height, width) or (height, width, channels).
        classes: The names of the classes, in the order of the labels.
    """
    classes = [shortened(name, _LONGEST) for name in classes[:_MAX_ROWS]]
    height, width = image_shape[:2]
    # In image pixels, so that gaps look the same for images of any size.
    gap = max(height, width) / 10
    column, row = width + gap, height + gap
    figure = Figure(figsize=(_WIDTH, _WIDTH * len(classes) * row / (_COLUMNS * column)), layout="constrained")
    axes = figure.subplots()
    for label in range(len(classes)):
        for position, index in enumerate(np.flatnonzero(labels == label)[:_COLUMNS]):
            left, top = position * column, label * row
            image = displayable(images[index], image_shape)
            axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(left, left + width, top + height, top))
    axes.set(xlim=(0, _COLUMNS * column - gap), ylim=(len(classes) * row - gap, 0), xticks=[])
    axes.set_yticks([label * row + height / 2 for label in range(len(classes))], classes)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure
