"""Augmentation: flips, shifts, rotations, scaling, shear and elastic distortion, with bilinear interpolation.

Elastic distortion follows Simard et al., Best Practices for Convolutional Neural Networks Applied to Visual
Document Analysis, ICDAR 2003, except that the displacements are drawn on a coarse grid instead of smoothed.
"""

from collections.abc import Iterator
from math import radians
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import AugmentSection

_CHUNK = 64  # images; small enough for the processor's cache
_GRID = 5  # displacements are drawn at 5×5 points and interpolated between them
BORDER = 2  # black pixels around an image, so that points outside of it need no special case

Floats = NDArray[np.float32]


class Distortions(NamedTuple):
    """The random distortions of n images."""

    mirrored: NDArray[np.bool_]  # (n,)
    # (n, 2, 3): a matrix for each image that maps (row, column, 1) of the result, relative to the centre, to
    # (row, column) of the image.
    affine: Floats
    # (n, 2, 5, 5): displacements in pixels, down and to the right, at each point of the coarse grid.
    bend: Floats | None


def draw(count: int, settings: AugmentSection, rng: np.random.Generator) -> Distortions:
    """Draw the distortions of `count` images; they are the same for all backends."""
    mirrored, affine, bend = zip(*_drawn(count, settings, rng), strict=True)
    return Distortions(
        np.concatenate(mirrored),
        np.concatenate(affine),
        None if bend[0] is None else np.concatenate(bend),
    )


def augment(
    images: NDArray[np.uint8],
    image_shape: tuple[int, ...],
    settings: AugmentSection,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Distort each image independently.

    Args:
        images: uint8 (n, pixels).
        image_shape: (height, width) or (height, width, channels).
        settings: the strength of each distortion.
        rng: the source of all random numbers.

    Returns:
        uint8 (n, pixels); pixels from outside of an image are black.
    """
    height, width, channels = image_shape if len(image_shape) == 3 else (*image_shape, 1)
    result = np.empty_like(images).reshape(-1, height * width, channels)
    along_rows, along_columns = interpolation(height), interpolation(width).T
    centre = np.array([[height - 1], [width - 1]], np.float32) / 2
    places = np.indices((height, width), np.float32).reshape(2, -1) - centre
    grid = np.concatenate([places, np.ones_like(places[:1])])
    for number, (mirrored, affine, bend) in enumerate(_drawn(len(images), settings, rng)):
        chunk = slice(number * _CHUNK, (number + 1) * _CHUNK)
        part = images[chunk].reshape(-1, height, width, channels)
        part = np.where(mirrored[:, None, None, None], part[:, :, ::-1], part)
        # Many small products, since NumPy would spread a large one over threads that mostly wait.
        places = affine @ grid + (centre + BORDER)
        if bend is not None:
            places += (along_rows @ bend @ along_columns).reshape(places.shape)
        result[chunk] = _sample(part, places)
    return result.reshape(images.shape)


def _drawn(count: int, settings: AugmentSection, rng: np.random.Generator) -> Iterator[Distortions]:
    """Yield the distortions of each chunk of images."""
    for start in range(0, count, _CHUNK):
        n = min(_CHUNK, count - start)
        mirrored = rng.random(n) < settings.flip
        affine = _affine(n, settings, rng)
        bend = None
        if settings.elastic > 0:
            bend = rng.normal(0, settings.elastic, (n, 2, _GRID, _GRID)).astype(np.float32)
        yield Distortions(mirrored, affine, bend)


def _affine(n: int, settings: AugmentSection, rng: np.random.Generator) -> Floats:
    def uniform(width: float, *shape: int) -> Floats:
        return rng.uniform(-width, width, (*shape, n)).astype(np.float32)

    angle = uniform(radians(settings.rotation))
    scale = 1 + uniform(settings.scale, 2)
    shear = uniform(settings.shear)
    shift = uniform(settings.shift, 2)
    cos, sin = np.cos(angle), np.sin(angle)
    to_row = [cos * scale[0], (shear * cos - sin) * scale[1], shift[0]]
    to_column = [sin * scale[0], (shear * sin + cos) * scale[1], shift[1]]
    return np.moveaxis(np.array([to_row, to_column]), -1, 0)


def interpolation(length: int) -> Floats:
    """Return the weight of each grid point at each pixel along one axis, (length, grid)."""
    place = np.linspace(0, _GRID - 1, length)
    left = np.minimum(place.astype(int), _GRID - 2)
    weights = np.zeros((length, _GRID), np.float32)
    weights[np.arange(length), left] = 1 - (place - left)
    weights[np.arange(length), left + 1] += place - left
    return weights


def _sample(images: NDArray[np.uint8], places: Floats) -> NDArray[np.uint8]:
    """Sample images (n, h, w, c) at real-valued positions (n, 2, h·w), border included: (n, h·w, c)."""
    n, height, width, channels = images.shape
    height, width = height + 2 * BORDER, width + 2 * BORDER
    padded = np.zeros((n, height, width, channels), np.uint8)
    padded[:, BORDER:-BORDER, BORDER:-BORDER] = images
    row = np.clip(places[:, 0], 0, height - 1.001)
    column = np.clip(places[:, 1], 0, width - 1.001)
    top, left = row.astype(np.int32), column.astype(np.int32)
    down, right = (row - top)[..., None], (column - left)[..., None]
    index = top * width + left + np.arange(n, dtype=np.int32)[:, None] * (height * width)
    flat = padded.reshape(-1, channels)

    def at(offset: int) -> Floats:
        values: Floats = flat.take(index + offset, axis=0).astype(np.float32)
        return values

    above = at(0)
    above += right * (at(1) - above)
    below = at(width)
    below += right * (at(width + 1) - below)
    above += down * (below - above)
    above += 0.5
    return above.astype(np.uint8)
