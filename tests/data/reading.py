"""Encoded pictures, and the settings to read them with."""

import io

from PIL import Image

from pipeline.config.section import ReaderSection


def settings(**changes) -> ReaderSection:
    values = {
        "image_size": (6, 8),
        "colour": "rgb",
        "resize": "pad",
        "background": "black",
        "prepare": "none",
        "max_pixels": 1_000_000,
    }
    return ReaderSection(**values | changes)


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()
