"""The raw arrays: what they must be, and .npy and .npz files read without trusting them."""

import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.workspace import RAW_ARRAYS

Arrays = Mapping[str, NDArray[Any]]


class Readable(Protocol):
    """All that a format needs of a file: to be read from the start to the end."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


def canonical(arrays: Arrays, classes: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Check the four RAW_ARRAYS and give them the one form in which they are stored and pinned.

    Args:
        arrays: images, uint8 (n, height, width) or (n, height, width, channels), and labels, any
            integers that int32 holds, (n,), for training and for test.
        classes: their names, in the order of the labels.

    Returns:
        The same values, C-contiguous, the labels as int32.

    Raises:
        PipelineError: an array is missing, has another shape or type, counts differ, there are no
            images, or a label names no class.
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
                f"{split}_images holds {len(images)} images, but {split}_labels {len(labels)} labels"
            )
        if not len(images):
            raise PipelineError(f"{split}_images is empty")
        stray = np.flatnonzero((labels < 0) | (labels >= len(classes)))
        if stray.size:
            raise PipelineError(
                f"{split}_labels holds {labels[stray[0]]} at index {stray[0]}, but data.classes names "
                f"{len(classes)} classes, so labels go from 0 to {len(classes) - 1}"
            )
    if arrays["train_images"].shape[1:] != arrays["test_images"].shape[1:]:
        raise PipelineError(
            f"train_images is {_described(arrays['train_images'])}, but test_images is "
            f"{_described(arrays['test_images'])}: the images must be of one size"
        )
    return {
        name: np.ascontiguousarray(arrays[name], np.int32 if name.endswith("labels") else np.uint8)
        for name in RAW_ARRAYS
    }


def _described(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"


def read_exactly(file: Readable, size: int, name: str) -> NDArray[np.uint8]:
    """Read `size` bytes, uint8 (size,); the caller has made sure that `size` is bearable.

    Raises:
        PipelineError: the file ends before.
    """
    content = np.empty(size, np.uint8)
    filled = 0
    while filled < size:
        chunk = file.read(min(size - filled, 2**20))
        if not chunk:
            raise PipelineError(f"{name} holds {filled} of the {size} bytes that its header claims")
        content[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)
    return content


def open_npy(path: Path) -> NDArray[Any]:
    """Map a .npy file into memory, read-only, without reading it.

    Raises:
        PipelineError: it is missing, no .npy file, holds objects, or is not as long as it claims.
    """
    try:
        with path.open("rb") as file:
            shape, dtype, fortran = _npy_header(file, path.stat().st_size, path.name)
            offset = file.tell()
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing: `dvc repro` fetches it.") from None
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


def read_npz(file: IO[bytes], name: str, members: Mapping[str, str], max_bytes: int) -> Arrays:
    """Read arrays out of an .npz file, without ever unpickling.

    Args:
        file: the archive, seekable.
        name: what to call it in a refusal.
        members: the arrays wanted, as {name in the result: name in the archive}.
        max_bytes: that any one array may unpack to.

    Raises:
        PipelineError: it is no .npz file, is damaged, lacks an array, or one of them holds objects,
            is larger than `max_bytes` or not as long as it claims.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return {
                wanted: _read_member(archive, member, f"{member}.npy in {name}", max_bytes)
                for wanted, member in members.items()
            }
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise PipelineError(f"{name} is not a whole .npz file: {error}") from None


def _read_member(archive: zipfile.ZipFile, member: str, name: str, max_bytes: int) -> NDArray[Any]:
    try:
        size = archive.getinfo(f"{member}.npy").file_size
    except KeyError:
        raise PipelineError(f"there is no {name}") from None
    if size > max_bytes:
        raise PipelineError(f"{name} unpacks to {size} bytes, more than data.max_bytes, {max_bytes}")
    with archive.open(f"{member}.npy") as file:
        shape, dtype, fortran = _npy_header(file, size, name)
        content = read_exactly(file, size - file.tell(), name)
    return content.view(dtype).reshape(shape, order="F" if fortran else "C")


def _npy_header(file: IO[bytes], size: int, name: str) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """The shape, type and Fortran order that a .npy file of `size` bytes claims, if it can be true."""
    try:
        version = npy.read_magic(file)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = read_header(file)
    except (ValueError, KeyError) as error:
        raise PipelineError(f"{name} is not a .npy file of version 1 or 2: {error}") from None
    if dtype.hasobject:
        raise PipelineError(f"{name} holds Python objects, which could run code: refused")
    claimed = math.prod(shape) * dtype.itemsize
    if any(length < 0 for length in shape) or claimed != size - file.tell():
        raise PipelineError(
            f"{name} holds {size - file.tell()} bytes of values, but its header claims {claimed}"
        )
    return shape, dtype, fortran
