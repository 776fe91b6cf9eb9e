"""Pictures of a digit, prepared as MNIST's images were: light on black, in a box, centred by mass."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_BOX = 20 / 28  # of the image's side, which the digit's longer side has
_NO_MARGIN = 16  # pixels: smaller images, as scikit-learn's of 8×8, are filled to the border
_SPECK = 0.03  # of the largest connected piece of ink: what is smaller is dirt
_LARGEST = 512  # pixels of a side: more say nothing about a digit
_OFF_CENTRE = 0.55  # pixels: MNIST's images are centred to half a pixel


def prepare_digit(levels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Find the digit on a photo, scan or drawing, dark on light or light on dark.

    An image that is already as MNIST's are is not changed.

    Args:
        levels: grey levels, uint8 (any height, any width).
        size: height and width of the image to make.

    Returns:
        uint8 (height, width), or None if nothing is on the picture.
    """
    if _is_prepared(levels, size):
        return levels
    ink = _ink(_reduced(levels))
    return _placed(_cut(ink), size) if ink.any() else None


def _is_prepared(levels: NDArray[np.uint8], size: tuple[int, int]) -> bool:
    if levels.shape != size or not levels.any():
        return False
    row, column = _centre(levels)
    if abs(row - size[0] / 2) >= _OFF_CENTRE or abs(column - size[1] / 2) >= _OFF_CENTRE:
        return False
    box = _box(size)
    return max(_cut(levels).shape) in (box - 1, box)


def _box(size: tuple[int, int]) -> int:
    return min(size) if min(size) < _NO_MARGIN else round(_BOX * min(size))


def _reduced(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if max(levels.shape) <= _LARGEST:
        return levels
    scale = _LARGEST / max(levels.shape)
    height, width = (max(1, round(side * scale)) for side in levels.shape)
    return _resized(levels, (height, width))


def _resized(levels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    from PIL import Image

    image = Image.fromarray(levels).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _ink(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Light on black: the paper taken off, the ink stretched to 255."""
    threshold = _otsu(levels)
    frame = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    if np.median(frame) > threshold:
        levels, threshold = 255 - levels, 254 - threshold
    is_ink = levels > threshold
    if not is_ink.any():
        return np.zeros_like(levels)
    full = np.median(levels[is_ink])
    stretched = (levels.astype(np.float32) - threshold) * (255 / max(full - threshold, 1))
    return _without_specks(np.clip(np.rint(stretched), 0, 255).astype(np.uint8))


def _without_specks(ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # Only pictures from outside need SciPy.
    from scipy.ndimage import label

    pieces, _ = label(ink, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.where((sizes >= _SPECK * sizes.max())[pieces], ink, 0).astype(np.uint8)


def _otsu(levels: NDArray[np.uint8]) -> int:
    """The level that parts dark from light best: up to it is dark."""
    counts = np.bincount(levels.ravel(), minlength=256).astype(np.float64)
    below, total = np.cumsum(counts), counts.sum()
    sums = np.cumsum(counts * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below - sums * total) ** 2 / (below * (total - below))
    return int(np.argmax(np.nan_to_num(between, nan=0.0, posinf=0.0)))


def _cut(ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The smallest part with all ink."""
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _centre(levels: NDArray[np.uint8]) -> tuple[float, float]:
    """Row and column of the centre of mass."""
    total, rows, columns = (_moments(levels.shape) @ levels.ravel()).tolist()
    return rows / total, columns / total


@lru_cache(maxsize=64)
def _moments(shape: tuple[int, int]) -> NDArray[np.float64]:
    """What the levels of an image of `shape` are multiplied by: one, their row and their column."""
    rows, columns = np.indices(shape, np.float64)
    return np.stack([np.ones_like(rows), rows, columns]).reshape(3, -1)


def _placed(digit: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scaled into the box, and its centre of mass put in the middle."""
    scale = _box(size) / max(digit.shape)
    height, width = (max(1, round(side * scale)) for side in digit.shape)
    small = _resized(digit, (height, width))
    image = np.zeros(size, np.uint8)
    top, left = (
        int(np.clip(round(middle / 2 - mass), 0, middle - side))
        for middle, mass, side in zip(size, _centre(small), small.shape, strict=True)
    )
    image[top : top + height, left : left + width] = small
    return image
