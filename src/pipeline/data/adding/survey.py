"""Survey a source: the sizes and modes of its pictures, and the size and colour to convert them to."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from pipeline.config.section import ReaderSection
from pipeline.data.batches import Batch, Listing
from pipeline.data.reader import PictureError, describe, read_picture
from pipeline.errors import PipelineError

_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F")
_LARGEST = 256  # If all pictures have one size, it is kept up to so many pixels a side.
_SMALL = 40  # Up to so many pixels a side, pictures become 32×32, not 64×64.
_NAMED = 5  # pictures that are named if none can be read


@dataclass
class Survey:
    """The number of pictures of each size (height, width) and mode."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    # The number of pictures, including those that can't be read.
    total: int = 0
    # Whether the images are arrays, which are not resized.
    is_pixels: bool = False

    @property
    def image_size(self) -> tuple[int, int]:
        """The size of all pictures, if they have the same one and are smaller than photos, else a square."""
        if len(self.sizes) == 1:
            [size] = self.sizes
            if max(size) <= _LARGEST or self.is_pixels:
                return size
        side = 32 if all(max(size) <= _SMALL for size in self.sizes) else 64
        return side, side

    @property
    def colour(self) -> str:
        """Grey if all pictures are grey, else rgb."""
        return "grey" if all(mode in _GREY for mode in self.modes) else "rgb"

    @property
    def description(self) -> str:
        """The sizes and modes as a human-readable line."""
        (size, most), *others = self.sizes.most_common()
        heights, widths = zip(*self.sizes, strict=True)
        text = f"all {_size(size)} pixels"
        if others:
            text = (
                f"{min(heights)} to {max(heights)} pixels high, {min(widths)} to {max(widths)} wide, "
                f"most often {_size(size)} ({most:,})"
            )
        modes = ", ".join(f"{count:,} {mode}" for mode, count in self.modes.most_common())
        return f"Sizes: {text}. Modes: {modes}."


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"


def survey(batches: Iterable[Batch], listing: Listing, reader: ReaderSection) -> Survey:
    """Look at the header of every picture.

    The reader says why a picture can't be read.

    Raises:
        PipelineError: If there are no pictures.
    """
    found = Survey()
    unread: list[tuple[str, str]] = []
    for batch in batches:
        found.total += len(batch.names)
        if isinstance(batch.content, np.ndarray):
            shape = batch.content.shape
            found.is_pixels = True
            found.sizes[shape[1], shape[2]] += shape[0]
            found.modes["L" if len(shape) == 3 else "RGB"] += shape[0]
            continue
        for name, content in zip(batch.names, batch.content, strict=True):
            if described := describe(content):
                found.sizes[described[0]] += 1
                found.modes[described[1]] += 1
            elif len(unread) < _NAMED:
                unread.append((name, _why(content, reader)))
    if not found.sizes:
        why = "".join(f"\n  {name} {reason}" for name, reason in [*unread, *listing.skipped][:_NAMED])
        raise PipelineError(f"it has no PNG, JPEG, GIF, BMP, WebP or TIFF pictures, and no pixels.{why}")
    return found


def _why(content: bytes | str, reader: ReaderSection) -> str:
    """Return the reason why a picture can't be read."""
    try:
        read_picture(content, reader)
    except PictureError as error:
        return error.reason
    return "can't be read"
