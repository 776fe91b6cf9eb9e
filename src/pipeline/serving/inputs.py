"""Inputs of `pipeline predict`: pictures in files, folders and archives, arrays and tables."""

import csv
import gzip
import io
import os
import re
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.section import ReaderSection
from pipeline.console import count
from pipeline.data.formats import idx
from pipeline.data.formats.npy import open_npy, read_npy, read_npz
from pipeline.data.formats.tar import WholeMember
from pipeline.data.formats.zip import members
from pipeline.data.reader import ENDINGS, PictureError, read_picture, read_pixels
from pipeline.errors import PipelineError

MAX_BYTES = 2**31  # of an array, once it is unpacked
_MAX_PICTURE = 2**28  # bytes of a picture in an archive
STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Item:
    """One input, from which an image is read."""

    name: str
    # An encoded picture, the path of its file, or pixels.
    content: bytes | str | NDArray[Any] = b""
    # Why there is no content; empty if there is.
    error: str = ""

    def read(self, reader: ReaderSection) -> NDArray[np.uint8]:
        """Read the image, uint8 of the shape that `reader` makes.

        Raises:
            PipelineError: If there is no content, or it can't be read.
        """
        if self.error:
            raise PipelineError(self.error)
        if isinstance(self.content, np.ndarray):
            return read_pixels(self.content, reader)
        try:
            return read_picture(self.content, reader)
        except OSError as error:
            raise PictureError(self.name, _reason(error)) from None


def items(paths: Sequence[str], reader: ReaderSection) -> Iterator[Item]:
    """Return an iterator over the items in `paths`.

    A file's type is recognized by its content. What can't be read is an item with an error.

    The paths are those of files, folders, which are searched recursively, and archives; "-" is the standard
    input.

    Raises:
        PipelineError: At once, if one of the paths does not exist.
    """
    # An empty path, as of an unset variable of the shell, would be the current folder.
    missing = [path for path in paths if path != STANDARD_INPUT and not (path and Path(path).exists())]
    if missing:
        raise PipelineError(f"There is no file or folder {missing[0] or repr('')}.")
    return (item for path in paths for item in _items(path, reader))


def _items(path: str, reader: ReaderSection) -> Iterator[Item]:
    if path == STANDARD_INPUT:
        yield from _from_file("standard input", io.BytesIO(sys.stdin.buffer.read()), None, reader)
    elif Path(path).is_dir():
        refused: list[OSError] = []
        for file in _files_below(path, refused):
            # Pictures are opened by the processes that decode them: there may be many thousands.
            if file.lower().endswith(ENDINGS) or not Path(file).is_file():
                yield Item(file, file)
            else:
                yield from _from_path(file, reader)
        yield from (Item(str(error.filename), error=_reason(error)) for error in refused)
    else:
        yield from _from_path(path, reader)


def _from_path(path: str, reader: ReaderSection) -> Iterator[Item]:
    try:
        with Path(path).open("rb") as file:
            if file.seekable():
                yield from _from_file(path, file, Path(path), reader)
            else:  # Such as the shell's `<(command)`.
                yield from _from_file(path, io.BytesIO(file.read()), None, reader)
    except OSError as error:
        yield Item(path, error=_reason(error))


def _reason(error: OSError) -> str:
    return f"can't be read: {error.strerror or error}"


def _files_below(folder: str, refused: list[OSError]) -> Iterator[str]:
    """Yield the files below a folder in natural order, except hidden ones; note the folders it can't read."""
    for root, folders, files in os.walk(folder, onerror=refused.append):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=_natural)
        path = str(Path(root) / "_")[:-1]  # One Path for each file would be slow: 0.2 s for ten thousand.
        for name in sorted((name for name in files if not name.startswith(".")), key=_natural):
            yield path + name


def _natural(name: str) -> list[tuple[int, str]]:
    # Every second part is a number. (`isdigit` is true of ², which is none.)
    return [(int(part) if index % 2 else 0, part) for index, part in enumerate(re.split(r"(\d+)", name))]


def _from_file(name: str, file: IO[bytes], path: Path | None, reader: ReaderSection) -> Iterator[Item]:
    """Yield the items in a file, whose type is told by its first bytes; by default it is a picture."""
    head = file.read(512)
    file.seek(0)
    try:
        if head.startswith(b"PK\x03\x04"):
            yield from _from_zip(name, file, reader)
        elif head.startswith(b"\x93NUMPY"):
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            array = open_npy(path) if path else read_npy(file, size, name, MAX_BYTES)
            yield from _from_array(name, array, reader)
        elif re.match(rb"\0\0\x08[\x03\x04]", head):
            yield from _from_array(name, idx.read(file, "images", MAX_BYTES), reader)
        elif head.startswith(b"\x1f\x8b") and not _is_tar(file):
            yield from _from_array(name, _unzipped(name, file), reader)
        elif _is_tar(file):
            yield from _from_tar(name, file)
        elif re.match(rb"[\w\"'. -]+[,;\t]", head):
            yield from _from_table(name, file, reader)
        else:
            yield Item(name, str(path) if path else file.read())
    except PipelineError as error:
        # The reason of a PictureError leaves out the name, which the item has already.
        yield Item(name, error=getattr(error, "reason", "") or str(error))


def _unzipped(name: str, file: IO[bytes]) -> NDArray[np.uint8]:
    """Read the images of a gzipped IDX file."""
    with gzip.GzipFile(fileobj=file) as unpacked:
        try:
            head = unpacked.read(4)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise PictureError(name, f"is damaged: {error}") from None
    if not re.fullmatch(rb"\0\0\x08[\x03\x04]", head):
        raise PictureError(name, "is gzipped, but is neither a tar archive nor an IDX file with images")
    file.seek(0)
    return idx.read(file, "images.gz", MAX_BYTES)


def _from_array(name: str, array: NDArray[Any], reader: ReaderSection) -> Iterator[Item]:
    """Yield the single image, or the images along the first axis; an axis of one channel is dropped."""
    if reader.colour == "grey" and array.shape[-1:] == (1,) and array.ndim > len(reader.image_shape):
        array = array[..., 0]
    if array.shape == reader.image_shape:
        yield Item(name, array)
    elif array.ndim == len(reader.image_shape) + 1:
        yield from (Item(f"{name}[{number}]", image) for number, image in enumerate(array))
    else:
        shape = ", ".join(map(str, reader.image_shape))
        raise PictureError(name, f"has the shape {array.shape}; it must be ({shape}) or (n, {shape})")


def _from_zip(name: str, file: IO[bytes], reader: ReaderSection) -> Iterator[Item]:
    try:
        arrays = _arrays_of(file)
        if arrays:
            yield from _from_npz(name, file, arrays, reader)
            return
        for archive, member in members(file):
            place = f"{name}/{member.filename}"
            if member.is_dir() or _is_hidden(member.filename):
                continue
            if member.file_size > _MAX_PICTURE:
                yield Item(place, error=f"unpacks to {member.file_size:,} bytes")
                continue
            try:
                yield Item(place, archive.read(member))
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
                yield Item(place, error=f"is damaged: {error}")
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
        raise PipelineError(f"{name} is not a complete archive: {error}") from None


def _arrays_of(file: IO[bytes]) -> list[str]:
    """Return the names of the arrays in a zip file, or an empty list if it has any other files."""
    found = []
    for _, member in members(file):
        if member.is_dir():
            continue
        if not member.filename.endswith(".npy"):
            return []
        found.append(member.filename.removesuffix(".npy"))
    return found


def _from_npz(name: str, file: IO[bytes], arrays: list[str], reader: ReaderSection) -> Iterator[Item]:
    """Yield the images in an NPZ file; arrays with fewer axes, such as labels, are skipped."""
    axes = len(reader.image_shape)
    found = False
    for member in arrays:
        array = np.asarray(read_npz(file, name, {member: member}, MAX_BYTES)[member])
        if array.ndim >= axes:
            found = True
            yield from _from_array(f"{name}/{member}", array, reader)
    if not found:
        raise PipelineError(f"{name} has no array of images, only {', '.join(arrays)}")


def _is_tar(file: IO[bytes]) -> bool:
    try:
        with tarfile.open(fileobj=file):
            return True
    except (tarfile.TarError, zlib.error, EOFError, OSError):
        return False
    finally:
        file.seek(0)


def _from_tar(name: str, file: IO[bytes]) -> Iterator[Item]:
    """Yield the regular files; links and devices are skipped, and nothing is unpacked to the disk."""
    try:
        with tarfile.open(fileobj=file, tarinfo=WholeMember) as archive:
            for member in archive:
                place = f"{name}/{member.name}"
                if not member.isfile() or _is_hidden(member.name):
                    continue
                if member.size > _MAX_PICTURE:
                    yield Item(place, error=f"has {member.size:,} bytes")
                    continue
                content = archive.extractfile(member)
                yield Item(place, content.read() if content else b"")
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise PipelineError(f"{name} is not a complete archive: {error}") from None


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/") if part not in (".", ".."))


def _from_table(name: str, file: IO[bytes], reader: ReaderSection) -> Iterator[Item]:
    """Yield the rows of a CSV file: the pixels of an image each, with or without a label before them."""
    pixels = prod(reader.image_shape)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
    try:
        dialect = csv.Sniffer().sniff(text.readline(), ",;\t")
        text.seek(0)
        for number, row in enumerate(csv.reader(text, dialect), start=1):
            if number == 1 and len(row) not in (pixels, pixels + 1):
                raise PictureError(name, _wrong_columns(row, pixels))  # Such as a list of files and labels.
            if number == 1 and not all(cell.strip().isdigit() for cell in row[1:]):
                continue  # The header.
            yield _from_row(f"{name}:{number}", row, pixels, reader)
    except csv.Error as error:
        raise PipelineError(f"{name} is not a valid CSV file: {error}") from None
    finally:
        text.detach()


def _from_row(name: str, row: Sequence[str], pixels: int, reader: ReaderSection) -> Item:
    if len(row) not in (pixels, pixels + 1):
        return Item(name, error=_wrong_columns(row, pixels))
    try:
        levels = np.array([int(cell) for cell in row[len(row) - pixels :]])
    except ValueError as error:
        return Item(name, error=f"has a pixel that is not a whole number: {error}")
    if levels.min() < 0 or levels.max() > 255:
        return Item(name, error="has a pixel that is not from 0 to 255")
    return Item(name, levels.astype(np.uint8).reshape(reader.image_shape))


def _wrong_columns(row: Sequence[str], pixels: int) -> str:
    return f"is text, and as CSV has {count(len(row), 'column')}; an image has {pixels} pixels"


def in_chunks(found: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of at most `size`; the first one alone, so that its answer comes soon."""
    chunk: list[Item] = []
    most = 1
    for item in found:
        chunk.append(item)
        if len(chunk) == most:
            yield chunk
            chunk, most = [], size
    if chunk:
        yield chunk
