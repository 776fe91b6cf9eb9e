"""Pixels from elsewhere: arrays and tables of numbers become levels from 0 to 255, or are refused."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError


def as_levels(values: NDArray[Any], what: str) -> NDArray[np.uint8]:
    """The same shape as uint8.

    Args:
        values: uint8, other whole numbers from 0 to 255, or floats from 0 to 1 that are 255ths.
        what: to call it in a refusal.

    Raises:
        PipelineError: a value is none of these.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "iuf":
        raise PipelineError(f"{what} holds {values.dtype}, no levels of grey")
    if not values.size:
        return values.astype(np.uint8)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise PipelineError(f"{what} holds values that are no numbers (nan or infinite)")
    low, high = values.min(), values.max()
    scaled = values
    if values.dtype.kind == "f" and high <= 1:
        scaled = values * values.dtype.type(255)
    whole = np.rint(scaled)
    if low < 0 or high > 255 or (np.abs(whole - scaled) > 0.01).any():
        raise PipelineError(
            f"{what} holds values from {low:g} to {high:g}; they must be whole from 0 to 255, or 255ths of "
            "1: save it before it is normalised"
        )
    return np.asarray(whole, np.uint8)


def shape_of(pixels: int, what: str) -> tuple[int, ...]:
    """The shape of a square image of so many numbers: grey, or else in three channels.

    Raises:
        PipelineError: there is none.
    """
    side = math.isqrt(pixels)
    if side * side == pixels:
        return side, side
    side = math.isqrt(pixels // 3)
    if 3 * side * side == pixels:
        return side, side, 3
    raise PipelineError(f"{what} has {pixels:,} pixels an image, which make no square, grey or in colour")


def without_one_channel(images: NDArray[Any]) -> NDArray[Any]:
    """(n, height, width, 1) as (n, height, width)."""
    return images[..., 0] if images.ndim == 4 and images.shape[-1] == 1 else images
