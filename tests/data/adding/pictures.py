"""Made pictures."""

from pathlib import Path

import numpy as np
from PIL import Image


def save(path: Path, seed: int, size=(9, 9), format="PNG") -> None:
    """A picture of its own, by its seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, format)
