"""Prepare pictures of digits as MNIST's images were: light on black, fitted into a box, centred by mass."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_BOX = 20 / 28  # the digit's longer side, as a fraction of the image's side
_NO_MARGIN = 16  # pixels; smaller images, such as scikit-learn's of 8×8, are filled to the border
_SPECK = 0.03  # of the largest connected piece of ink; smaller pieces are taken for dirt
_LARGEST = 512  # pixels a side; more would not help to recognise a digit
_OFF_CENTRE = 0.55  # pixels; MNIST's images are centred to within half a pixel


def prepare_digit(levels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Find the digit in a photo, scan or drawing, dark on light or light on dark.

    An image that already looks like MNIST's is not changed.

    Args:
        levels: Grey levels, uint8 (any height, any width).
        size: The height and width of the result.

    Returns:
        uint8 (height, width), or None if the picture is blank.
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
    """Make the ink light on black: remove the paper, and stretch the ink to 255."""
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
    # Imported here, since only pictures that are not prepared yet need SciPy.
    from scipy.ndimage import label

    pieces, _ = label(ink, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.where((sizes >= _SPECK * sizes.max())[pieces], ink, 0).astype(np.uint8)


def _otsu(levels: NDArray[np.uint8]) -> int:
    """Return the level that best separates dark from light, by Otsu's method; it counts as dark itself."""
    counts = np.bincount(levels.ravel(), minlength=256).astype(np.float64)
    below, total = np.cumsum(counts), counts.sum()
    sums = np.cumsum(counts * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below - sums * total) ** 2 / (below * (total - below))
    return int(np.argmax(np.nan_to_num(between, nan=0.0, posinf=0.0)))


def _cut(ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut out the smallest rectangle with all ink."""
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _centre(levels: NDArray[np.uint8]) -> tuple[float, float]:
    """Return the row and column of the centre of mass."""
    total, rows, columns = (_moments(levels.shape) @ levels.ravel()).tolist()
    return rows / total, columns / total


@lru_cache(maxsize=64)
def _moments(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return the weights of the pixels of an image, float64 (3, pixels): one, their row and their column."""
    rows, columns = np.indices(shape, np.float64)
    return np.stack([np.ones_like(rows), rows, columns]).reshape(3, -1)


def _placed(digit: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale a digit into the box, and put its centre of mass in the middle of the image."""
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
