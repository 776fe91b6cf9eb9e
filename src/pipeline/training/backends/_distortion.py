"""Augmentation on the device with JAX, by the same formulas as `pipeline.training.augment`."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.lax import Precision

from pipeline.training.augment import BORDER, Distortions, interpolation


def distort(images: Any, image_shape: tuple[int, ...], drawn: Distortions) -> Any:
    """Distort each image independently.

    Args:
        images: uint8 (n, pixels).
        image_shape: (height, width) or (height, width, channels).
        drawn: the result of `pipeline.training.augment.draw` for n images.

    Returns:
        uint8 (n, pixels), equal to the result of NumPy to within one grey level.
    """
    height, width, channels = image_shape if len(image_shape) == 3 else (*image_shape, 1)
    part = images.reshape(-1, height, width, channels)
    part = jnp.where(drawn.mirrored[:, None, None, None], part[:, :, ::-1], part)
    centre = np.array([height - 1, width - 1], np.float32) / 2
    rows = np.arange(height, dtype=np.float32)[:, None] - centre[0]
    columns = np.arange(width, dtype=np.float32) - centre[1]
    # Element by element, since matrix products on a GPU may round to ten bits.
    matrix = drawn.affine[..., None, None]
    places = matrix[:, :, 0] * rows + matrix[:, :, 1] * columns + matrix[:, :, 2]
    places += (centre + BORDER)[:, None, None]
    if drawn.bend is not None:
        along = interpolation(height), interpolation(width)
        places += jnp.einsum("rp,nipq,cq->nirc", along[0], drawn.bend, along[1], precision=Precision.HIGHEST)
    return _sample(part, places).reshape(images.shape)


def _sample(images: Any, places: Any) -> Any:
    """Sample images (n, h, w, c) at real-valued positions (n, 2, h, w), border included: (n, h, w, c)."""
    border = (BORDER, BORDER)
    padded = jnp.pad(images, ((0, 0), border, border, (0, 0)))
    height, width = padded.shape[1:3]
    row = jnp.clip(places[:, 0], 0, height - 1.001)
    column = jnp.clip(places[:, 1], 0, width - 1.001)
    top, left = row.astype(jnp.int32), column.astype(jnp.int32)
    down, right = (row - top)[..., None], (column - left)[..., None]
    number = jnp.arange(len(images))[:, None, None]

    def at(below: int, beside: int) -> Any:
        return padded[number, top + below, left + beside].astype(jnp.float32)

    above = at(0, 0) + right * (at(0, 1) - at(0, 0))
    below = at(1, 0) + right * (at(1, 1) - at(1, 0))
    return (above + down * (below - above) + 0.5).astype(jnp.uint8)
