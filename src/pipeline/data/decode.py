"""Decode batches of pictures into the rows of a temporary file, on all cores, in bounded memory."""

import functools
import hashlib
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from math import prod
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.section import ReaderSection
from pipeline.console import Track, track
from pipeline.data.batches import Batch, Listing, Split
from pipeline.data.pool import in_order
from pipeline.data.reader import PictureError, read_sized
from pipeline.errors import PipelineError

DIGEST_BYTES = 16
_FEW = 128  # pictures that are decoded in less time than it takes to start processes

# The digest of an image's pixels and the size that its picture had, or the reason why it can't be read.
Outcome = tuple[bytes, tuple[int, int] | None] | str


@dataclass
class Rows:
    """Images in a temporary file without a name, and what the source says about each."""

    file: IO[bytes]
    shape: tuple[int, ...]
    names: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)  # class names or numbers; None if the name tells
    splits: list[Split | None] = field(default_factory=list)
    # Compact arrays instead of objects, since there may be a million images.
    digests: bytearray = field(default_factory=bytearray)  # of the pixels, DIGEST_BYTES each
    sizes: "array[int]" = field(default_factory=lambda: array("i"))  # two per picture; none for arrays
    offsets: "array[int]" = field(default_factory=lambda: array("q"))  # the row in the file
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def keep(self, indices: Sequence[int]) -> None:
        """Keep only the images with these indices."""
        self.names = [self.names[index] for index in indices]
        self.labels = [self.labels[index] for index in indices]
        self.splits = [self.splits[index] for index in indices]
        digests = np.frombuffer(self.digests, np.uint8).reshape(-1, DIGEST_BYTES)
        self.digests = bytearray(digests[indices].tobytes())
        self.offsets = array("q", np.asarray(self.offsets)[indices].tobytes())
        if self.sizes:
            self.sizes = array("i", np.asarray(self.sizes).reshape(-1, 2)[indices].tobytes())


def decode(
    batches: Iterable[Batch], reader: ReaderSection, listing: Listing, *, skip: bool, what: str
) -> Rows:
    """Read all images.

    Pictures that can't be read are left out with `skip`, and otherwise refused. Arrays must already have the
    type and shape that the reader makes. The batches may add to `listing` while they are read.

    Raises:
        PipelineError: If a picture can't be read and is not to be skipped, or an array is not an image.
    """
    rows = Rows(tempfile.TemporaryFile(), reader.image_shape)  # noqa: SIM115 (open as long as it is used)
    batches = iter(batches)
    first = list(islice(batches, 1))  # Only then does the source know how many images it has.
    with track(listing.total, f"Reading {what}") as progress:

        def pictures() -> Iterator[tuple[tuple[Batch, int], tuple[Sequence[bytes | str], int], int]]:
            start = 0
            for batch in chain(first, batches):
                if isinstance(batch.content, np.ndarray):
                    _note(batch, start, _write(batch.content, rows, start), rows, skip, progress)
                else:
                    yield (batch, start), (batch.content, start), len(batch.names)
                start += len(batch.names)

        read = functools.partial(_read, rows.file.fileno(), reader)
        for (batch, start), outcomes in in_order(read, pictures(), _FEW):
            _note(batch, start, outcomes, rows, skip, progress)
    rows.skipped += listing.skipped
    return rows


def _note(
    batch: Batch, start: int, outcomes: Sequence[Outcome], rows: Rows, skip: bool, progress: Track
) -> None:
    """Add the outcomes of a batch to the rows."""
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, str):
            if not skip:
                raise PipelineError(
                    f"{batch.names[index]} {outcome}: remove it, or set unreadable to skip next to the path"
                )
            rows.skipped.append((batch.names[index], outcome))
            continue
        rows.names.append(batch.names[index])
        rows.labels.append(None if batch.labels is None else batch.labels[index])
        rows.splits.append(batch.split)
        digest, size = outcome
        rows.digests += digest
        rows.sizes.extend(size or ())
        rows.offsets.append(start + index)
    progress.advance(len(outcomes))


def _digest_of(pixels: NDArray[np.uint8]) -> bytes:
    """Return a digest that is the same only for equal images."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=DIGEST_BYTES).digest()


def _write(images: NDArray[Any], rows: Rows, start: int) -> list[Outcome]:
    if images.ndim == 4 and images.shape[3] != 3:
        raise PipelineError(
            f"its images have {images.shape[3]} channels, but must be grey or have three, for colour"
        )
    if images.dtype != np.uint8 or images.shape[1:] != rows.shape:
        raise PipelineError(
            f"its images are {images.dtype} {images.shape[1:]}, but data.reader makes {rows.shape}: set "
            "image_size and colour in data.reader to what the arrays have"
        )
    images = np.ascontiguousarray(images)
    _write_at(rows.file.fileno(), images.ravel().data, start * prod(rows.shape))
    return [(_digest_of(image), None) for image in images]


def _write_at(file: int, content: memoryview | bytes, offset: int) -> None:
    """Write all of the content at an offset of a file."""
    left = memoryview(content)
    while left:
        written = os.pwrite(file, left, offset)
        left, offset = left[written:], offset + written


def _read(file: int, settings: ReaderSection, piece: tuple[Sequence[bytes | str], int]) -> list[Outcome]:
    """Decode pictures into the rows of the file, from a given row on."""
    outcomes: list[Outcome] = []
    contents, start = piece
    for row, content in enumerate(contents, start):
        try:
            pixels, size = read_sized(content, settings)
        except PictureError as error:
            outcomes.append(error.reason)
            continue
        _write_at(file, pixels.tobytes(), row * pixels.nbytes)
        outcomes.append((_digest_of(pixels), size))
    return outcomes
