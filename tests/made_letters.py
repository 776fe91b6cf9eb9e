"""Draw synthetic pictures: letters in colour, in several fonts, sizes and modes, as a folder of classes."""

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_NAMES = ("Sans", "Sans-Bold", "Sans-Oblique", "SansMono", "Serif", "Serif-Bold")
FONTS = [Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVu{name}.ttf" for name in _NAMES]


def draw(letter: str, rng: np.random.Generator) -> Image.Image:
    """Draw one dark letter on light paper, both of any colour, slightly rotated."""
    side = int(rng.integers(36, 97))
    height, width = side, int(side * rng.uniform(0.8, 1.25))
    ink, paper = rng.integers(0, 120, 3), rng.integers(170, 256, 3)
    image = Image.new("RGB", (width, height), tuple(map(int, paper)))
    font = ImageFont.truetype(str(FONTS[rng.integers(len(FONTS))]), int(0.75 * min(height, width)))
    middle = (width / 2 + rng.uniform(-3, 3), height / 2 + rng.uniform(-3, 3))
    ImageDraw.Draw(image).text(middle, letter, tuple(map(int, ink)), font, anchor="mm")
    turned = image.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC, fillcolor=tuple(map(int, paper)))
    return turned.convert("L") if rng.random() < 0.1 else turned


def write(folder: Path, letters: str, each: int, seed: int = 0) -> None:
    """Write `each` pictures of each letter, as PNG and JPEG files."""
    rng = np.random.default_rng(seed)
    for letter in letters:
        (folder / letter).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            ending = "jpg" if number % 3 == 0 else "png"
            draw(letter, rng).save(folder / letter / f"{seed}-{number}.{ending}")
