"""The IDX format, in which MNIST and similar data sets are published: a magic number, sizes, and bytes."""

import gzip
import math
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.arrays import PIECE_BYTES, Readable, read_exactly
from pipeline.errors import PipelineError

# The names under which RAW_ARRAYS are published.
PUBLISHED_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_TYPES = {8: "u1", 11: ">i2", 12: ">i4"}  # the latter two are for labels only
_FILE = re.compile(r"(?:emnist-[a-z]+-)?(train|t10k|test)-(images|labels)[-.]idx[134]-ubyte(\.gz)?")


def raw_name(file_name: str) -> str | None:
    """Return which of the RAW_ARRAYS a file has, by its published name, or None if it is none of them."""
    match = _FILE.fullmatch(file_name)
    return match and f"{match[1].replace('t10k', 'test')}_{match[2]}"


def read(file: IO[bytes], name: str, max_bytes: int) -> NDArray[Any]:
    """Read one IDX file, gzipped if its name ends in .gz.

    The name is one under which one of the RAW_ARRAYS is published.

    Returns:
        Labels (n,), uint8 or big-endian int16 or int32 as the file has them, or uint8 images
        (n, height, width) or (n, height, width, channels).

    Raises:
        PipelineError: If the magic number is wrong, its header claims more bytes than `max_bytes` or than
            there are, bytes follow the last value, or the gzip stream is damaged.
    """
    [values] = pieces(file, name, max_bytes, whole=True)
    return values


def pieces(file: IO[bytes], name: str, max_bytes: int, *, whole: bool = False) -> Iterator[NDArray[Any]]:
    """Read one IDX file as `read` does, a few megabytes along the first axis at a time, or as a whole."""
    try:
        with gzip.GzipFile(fileobj=file) if name.endswith(".gz") else nullcontext(file) as unpacked:
            shape, dtype = _header(unpacked, name, max_bytes)
            row = math.prod(shape[1:]) * dtype.itemsize
            step = max(1, shape[0] if whole else PIECE_BYTES // max(row, 1))
            for start in range(0, step if whole else shape[0], step):
                count = min(step, shape[0] - start)
                yield read_exactly(unpacked, count * row, name).view(dtype).reshape(count, *shape[1:])
            if unpacked.read(1):
                raise PipelineError(
                    f"{name} has trailing bytes after the {shape[0]} items that its header claims"
                )
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise PipelineError(f"{name} is not a complete gzip file: {error}") from None


def _header(file: Readable, name: str, max_bytes: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    magic = file.read(4)
    # The magic number is two zeros, the type, and the number of dimensions.
    kinds = [(kind, 1) for kind in _TYPES] if "labels" in name else [(8, 3), (8, 4)]
    expected = [bytes((0, 0, *kind)) for kind in kinds]
    if magic not in expected:
        raise PipelineError(
            f"{name} has the wrong magic number {magic.hex(' ') or '(it is empty)'}: "
            f"expected {' or '.join(number.hex(' ') for number in expected)}"
        )
    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise PipelineError(f"{name} ends within its header")
    shape = struct.unpack(f">{magic[3]}I", sizes)
    dtype = np.dtype(_TYPES[magic[2]])
    size = math.prod(shape) * dtype.itemsize
    if size > max_bytes:
        raise PipelineError(f"{name} claims {size} bytes, more than data.max_bytes, {max_bytes}")
    return shape, dtype
