"""Turn images into PNG files, or into synthetic photos: dark on light, larger, off-centre and noisy."""

import io

import numpy as np
from PIL import Image


def png(image) -> bytes:
    """Return the bytes of a PNG file with an image."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def photo(image, rng):
    """Return a photo, uint8 (height, width), of an image with light ink on black, uint8 (rows, columns)."""
    scale = int(rng.integers(6, 15))
    ink = Image.fromarray(image).resize(
        (image.shape[1] * scale, image.shape[0] * scale), Image.Resampling.BICUBIC
    )
    height, width = (int(size * rng.uniform(1, 2)) for size in (ink.height, ink.width))
    page = np.zeros((height, width))
    top, left = (int(rng.integers(0, room + 1)) for room in (height - ink.height, width - ink.width))
    page[top : top + ink.height, left : left + ink.width] = np.asarray(ink) / 255
    slope = rng.uniform(-0.25, 0.25, 2)
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    light = 0.8 + slope[0] * (rows - 0.5) + slope[1] * (columns - 0.5)
    paper = light * (1 - 0.85 * page) + rng.normal(0, 0.03, page.shape)
    return np.clip(255 * paper, 0, 255).astype(np.uint8)
