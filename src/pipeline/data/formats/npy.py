"""Read NumPy's .npy and .npz files without trusting them, and write .npy files."""

import hashlib
import io
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline.data.arrays import PIECE_BYTES, Chosen, pieces, read_exactly
from pipeline.errors import PipelineError


def open_npy(path: Path) -> NDArray[Any]:
    """Map a .npy file into memory, read-only, without reading it.

    Raises:
        PipelineError: If it is missing or not a .npy file, contains objects, or does not have the length
            that its header claims.
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


def write_npy(array: NDArray[Any] | Chosen, file: IO[bytes] | None = None) -> str:
    """Write an array as np.save does, in pieces, if there is a file, and return the file's SHA-256."""
    header = io.BytesIO()
    description = {"descr": npy.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    npy.write_array_header_1_0(header, description)
    digest = hashlib.sha256(header.getvalue())
    if file:
        file.write(header.getvalue())
    for piece in pieces(array):
        digest.update(piece.data)
        if file:
            file.write(piece.data)
    return digest.hexdigest()


def read_npz(
    file: IO[bytes], name: str, members: Mapping[str, str], max_bytes: int
) -> dict[str, NDArray[Any]]:
    """Read arrays from an .npz file, without ever unpickling.

    The file is seekable, and `members` are {name in the result: name in the archive}.

    Raises:
        PipelineError: If it is not an .npz file, is damaged or lacks an array, or an array contains objects,
            is larger than `max_bytes`, or does not have the length that its header claims.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return {
                wanted: _read_member(archive, member, f"{member}.npy in {name}", max_bytes)
                for wanted, member in members.items()
            }
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise PipelineError(f"{name} is not a complete .npz file: {error}") from None


def _read_member(archive: zipfile.ZipFile, member: str, name: str, max_bytes: int) -> NDArray[Any]:
    try:
        size = archive.getinfo(f"{member}.npy").file_size
    except KeyError:
        raise PipelineError(f"there is no {name}") from None
    with archive.open(f"{member}.npy") as file:
        return read_npy(file, size, name, max_bytes)


def read_npy(file: IO[bytes], size: int, name: str, max_bytes: int) -> NDArray[Any]:
    """Read a whole .npy file; otherwise like `npy_pieces`."""
    shape, dtype, fortran = _npy_header(file, size, name, max_bytes)
    content = read_exactly(file, math.prod(shape) * dtype.itemsize, name)
    return content.view(dtype).reshape(shape, order="F" if fortran else "C")


def npy_pieces(
    opener: Callable[[], IO[bytes]], size: int, name: str, max_bytes: int
) -> Iterator[NDArray[Any]]:
    """Read a .npy file from start to end, a few megabytes along the first axis at a time.

    `opener` opens the file, which has `size` bytes and is called `name` in messages.

    Raises:
        PipelineError: If it is not a .npy file, contains objects, is larger than `max_bytes`, does not have
            the length that its header claims, or is damaged.
    """
    try:
        with opener() as file:
            shape, dtype, fortran = _npy_header(file, size, name, max_bytes)
            if fortran or not shape:
                # In Fortran order, the first axis is spread over the whole file.
                content = read_exactly(file, math.prod(shape) * dtype.itemsize, name)
                yield content.view(dtype).reshape(shape, order="F" if fortran else "C")
                return
            row = math.prod(shape[1:]) * dtype.itemsize
            step = max(1, PIECE_BYTES // max(row, 1))
            for start in range(0, shape[0], step):
                count = min(step, shape[0] - start)
                yield read_exactly(file, count * row, name).view(dtype).reshape(count, *shape[1:])
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise PipelineError(f"{name} is damaged: {error}") from None


def _npy_header(
    file: IO[bytes], size: int, name: str, max_bytes: float = math.inf
) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Return the shape, type and Fortran order in a .npy file's header, if they fit its size in bytes."""
    if size > max_bytes:
        raise PipelineError(f"{name} unpacks to {size} bytes, more than data.max_bytes, {max_bytes}")
    try:
        version = npy.read_magic(file)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = read_header(file)
    except (ValueError, KeyError) as error:
        raise PipelineError(f"{name} is not a .npy file of version 1 or 2: {error}") from None
    if dtype.hasobject:
        raise PipelineError(f"{name} contains Python objects, which could run code: refused")
    claimed = math.prod(shape) * dtype.itemsize
    if any(length < 0 for length in shape) or claimed != size - file.tell():
        raise PipelineError(
            f"{name} has {size - file.tell()} bytes of values, but its header claims {claimed}"
        )
    return shape, dtype, fortran
