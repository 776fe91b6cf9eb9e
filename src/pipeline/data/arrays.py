"""The raw arrays: their requirements, and the one form in which they are stored."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.workspace import RAW_ARRAYS
from pipeline.errors import PipelineError

# The RAW_ARRAYS; a source of files also has the NAMES of the pictures and their SIZES, int32 (n, 2).
Arrays = Mapping[str, Any]
NAMES = ("train_names", "test_names")
SIZES = ("train_sizes", "test_sizes")
PIECE_BYTES = 2**22


class Readable(Protocol):
    """The only thing that a format needs from a file: reading it from start to end."""

    def read(self, size: int, /) -> bytes:
        """Read at most `size` bytes; none at the end."""


class Chosen:
    """Images chosen from a file, in any order, that are never in memory all at once.

    Args:
        file: Contains uint8 (rows, *shape).
        shape: The shape of an image.
        rows: The chosen rows in their order, int64 (n,).
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], rows: NDArray[np.int64]) -> None:
        self._file, self._rows = file, rows
        self.shape = (len(rows), *shape)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return len(self._rows)

    def pieces(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the images, a few megabytes at a time."""
        size = math.prod(self.shape[1:])
        step = max(1, PIECE_BYTES // size)
        for start in range(0, len(self), step):
            rows = self._rows[start : start + step].tolist()
            piece = np.empty((len(rows), *self.shape[1:]), np.uint8)
            # Not a memory map: reading a few scattered images would bring most of the file into memory.
            for image, row in zip(piece, rows, strict=True):
                os.preadv(self._file.fileno(), [image], row * size)
            yield piece


def pieces(array: "NDArray[Any] | Chosen") -> Iterator[NDArray[Any]]:
    """Yield an array in pieces that fit into memory, C-contiguous."""
    if isinstance(array, Chosen):
        yield from array.pieces()
    else:
        yield np.ascontiguousarray(array)


def canonical(arrays: Arrays, classes: Sequence[str], image_shape: tuple[int, ...]) -> dict[str, Any]:
    """Check the four RAW_ARRAYS and convert them to the one form in which they are stored and pinned.

    Args:
        arrays: For training and for testing: images, uint8 (n, height, width) or
            (n, height, width, channels), and labels, (n,), any integers that fit into int32.
        classes: The names of the classes, in the order of the labels.
        image_shape: The shape of one image, as `data.reader` makes it from a picture.

    Returns:
        The same values, C-contiguous, the labels as int32.

    Raises:
        PipelineError: If an array is missing or has another shape or type, the numbers of images and labels
            differ, there are no images, or a label has no class.
    """
    missing = [name for name in RAW_ARRAYS if name not in arrays]
    if missing:
        raise PipelineError(f"there is no {' and no '.join(missing)}")
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape[1:]:
            raise PipelineError(
                f"{split}_images is {_described(images)}; it must be uint8 (images, height, width) "
                "or (images, height, width, channels)"
            )
        if labels.dtype.kind not in "iu" or not np.can_cast(labels.dtype, np.int32) or labels.ndim != 1:
            raise PipelineError(f"{split}_labels is {_described(labels)}; it must be int32 (images,)")
        if len(images) != len(labels):
            raise PipelineError(
                f"{split}_images has {len(images)} images, but {split}_labels has {len(labels)} labels"
            )
        if not len(images):
            raise PipelineError(f"{split}_images is empty")
        stray = np.flatnonzero((labels < 0) | (labels >= len(classes)))
        if stray.size:
            raise PipelineError(
                f"{split}_labels has {labels[stray[0]]} at index {stray[0]}, but data.classes names "
                f"{len(classes)} classes, so labels must be from 0 to {len(classes) - 1}"
            )
        if images.shape[1:] != image_shape:
            raise PipelineError(
                f"{split}_images is {_described(images)}, but data.reader makes images of shape "
                f"{image_shape}: set image_size and colour in data.reader to what the arrays have"
            )
    return {name: _contiguous(name, arrays[name]) for name in RAW_ARRAYS}


def _contiguous(name: str, array: "NDArray[Any] | Chosen") -> "NDArray[Any] | Chosen":
    if isinstance(array, Chosen):
        return array
    return np.ascontiguousarray(array, np.int32 if name.endswith("labels") else np.uint8)


def _described(array: "NDArray[Any] | Chosen") -> str:
    return f"{array.dtype} {array.shape}"


def read_exactly(file: Readable, size: int, name: str) -> NDArray[np.uint8]:
    """Read `size` bytes, uint8 (size,); the caller must make sure that `size` is not too large.

    Raises:
        PipelineError: If the file ends too early.
    """
    content = np.empty(size, np.uint8)
    filled = 0
    while filled < size:
        chunk = file.read(min(size - filled, 2**20))
        if not chunk:
            raise PipelineError(f"{name} has only {filled} of the {size} bytes that its header claims")
        content[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)
    return content
