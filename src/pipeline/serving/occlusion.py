"""Occlusion maps: find the parts of an image that support an answer by hiding one after the other."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_CELLS = 14  # along the longer side
_HIDDEN = 2  # cells along each side of what is hidden at once


def occlusion(
    image: NDArray[np.uint8], label: int, probabilities: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Compute how much the log-odds of `label` fall when parts of the image are hidden.

    The image is divided into cells. Squares of two by two cells are filled with the image's median colour,
    one at a time; the value of a cell is the mean loss in log-odds over the squares that cover it.

    Args:
        image: uint8 (height, width) or (height, width, channels).
        label: The index of the class.
        probabilities: Maps images, uint8 (n, *image_shape), to probabilities, float32 (n, classes).

    Returns:
        float32 (rows, columns), at most 14 each: positive where the image supports the label, negative where
        it contradicts it.
    """
    height, width = image.shape[:2]
    rows, columns = (max(1, round(side * _CELLS / max(height, width))) for side in (height, width))
    rows, columns = min(rows, height), min(columns, width)
    tops = np.linspace(0, height, rows + 1).round().astype(int)
    lefts = np.linspace(0, width, columns + 1).round().astype(int)
    fill = np.median(image, axis=(0, 1)).astype(np.uint8)
    # The squares at the edges lie partly outside of the image.
    parts = [
        (slice(max(row, 0), min(row + _HIDDEN, rows)), slice(max(column, 0), min(column + _HIDDEN, columns)))
        for row in range(1 - _HIDDEN, rows)
        for column in range(1 - _HIDDEN, columns)
    ]
    hidden = np.repeat(image[None], len(parts), axis=0)
    for copy, (down, across) in zip(hidden, parts, strict=True):
        copy[tops[down.start] : tops[down.stop], lefts[across.start] : lefts[across.stop]] = fill
    believed = _log_odds(probabilities(image[None])[:, label])
    lost = believed - _log_odds(probabilities(hidden)[:, label])
    sums, squares = np.zeros((rows, columns), np.float32), np.zeros((rows, columns), np.float32)
    for part, loss in zip(parts, lost, strict=True):
        sums[part] += loss
        squares[part] += 1
    return np.asarray(sums / squares, np.float32)


def _log_odds(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    clipped = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(clipped / (1 - clipped)), np.float32)
