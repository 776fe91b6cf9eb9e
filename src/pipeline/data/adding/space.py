"""Check whether images of some size would fit on the disk and, one batch at a time, into memory."""

import os
import shutil
import tempfile
from math import prod
from pathlib import Path

from pipeline.config.section import ReaderSection
from pipeline.errors import PipelineError

# data/raw, data/processed, and a copy of each in DVC's cache.
_COPIES = 4
# The least that training holds at once: a batch of the default size, as numbers of 4 bytes. Each layer of a
# network holds at least as much again, so half of the memory is already too much for a batch.
_BATCH_BYTES = 32 * 4


def refuse_if_too_large(images: int, reader: ReaderSection, home: Path) -> None:
    """Refuse images that would not fit, before the work starts, not when the disk is full."""
    height, width = reader.image_size
    each = prod(reader.image_shape)
    what = f"{images:,} images of {height}×{width} pixels, {reader.colour}, take {_size(images * each)}"
    smaller = "choose a smaller --image-size"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if each * _BATCH_BYTES > memory / 2:
        raise PipelineError(
            f"{what}, and a batch of 32 of them in training {_size(each * _BATCH_BYTES)}, more than half of "
            f"the memory, {_size(memory)}: {smaller}"
        )
    for folder, copies, of in (
        (Path(tempfile.gettempdir()), 1, "in a temporary file"),
        (home, _COPIES, "in data/raw, data/processed and DVC's cache of both"),
    ):
        free = shutil.disk_usage(folder).free
        if images * each * copies > free:
            raise PipelineError(
                f"{what}, and {_size(images * each * copies)} {of}; {_size(free)} are free at {folder}: "
                f"{smaller}, or make room"
            )


def _size(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"
