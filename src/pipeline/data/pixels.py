"""Convert pixels from arrays and tables to levels from 0 to 255, or refuse them."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError

FEWEST_PIXELS = 16  # that an image in a table may have


def as_levels(values: NDArray[Any], what: str) -> NDArray[np.uint8]:
    """Convert values to uint8 levels of the same shape.

    Args:
        values: uint8, other whole numbers from 0 to 255, floats from 0 to 1 that are multiples of 1/255, or
            booleans.
        what: What to call them in a message.

    Raises:
        PipelineError: If a value is none of these.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "iuf":
        raise PipelineError(f"{what} has the type {values.dtype}, which is not a type of pixels")
    if not values.size:
        return values.astype(np.uint8)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise PipelineError(f"{what} has values that are not finite numbers (nan or infinite)")
    low, high = values.min(), values.max()
    scaled = values
    if values.dtype.kind == "f" and high <= 1:
        scaled = values * values.dtype.type(255)
    whole = np.rint(scaled)
    if low < 0 or high > 255 or (np.abs(whole - scaled) > 0.01).any():
        raise PipelineError(
            f"{what} has values from {low:g} to {high:g}; they must be whole numbers from 0 to 255, or "
            "multiples of 1/255 up to 1: save it before it is normalised"
        )
    return np.asarray(whole, np.uint8)


def shape_of(pixels: int, what: str) -> tuple[int, ...]:
    """Return the shape of a square image with so many values: grey, or else with three channels.

    Raises:
        PipelineError: If there is none.
    """
    side = math.isqrt(pixels)
    if side * side == pixels:
        return side, side
    side = math.isqrt(pixels // 3)
    if 3 * side * side == pixels:
        return side, side, 3
    raise PipelineError(f"{what} has {pixels:,} pixels per image, which is not a square, grey or in colour")


def without_one_channel(images: NDArray[Any]) -> NDArray[Any]:
    """Return images (n, height, width, 1) as (n, height, width), and others unchanged."""
    return images[..., 0] if images.ndim == 4 and images.shape[-1] == 1 else images
