"""A CSV file with an image in each row, as pixels or as the name of a file; or a folder of such, by split."""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.batches import PICTURES, Batch, Listing, LocalSource, Split, split_of, tables
from pipeline.data.collect import loader
from pipeline.data.pixels import as_levels, shape_of
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection

_LABELS = ("label", "labels", "class", "target", "category", "emotion", "digit")
_FILES = ("file_name", "filename", "file", "image", "path", "filepath", "image_path", "id")
_SPLIT = ("split", "usage", "subset")
_NUMBERS = ("", "unnamed: 0", "id", "index")  # of the rows, as pandas and Kaggle write them
_FEWEST_PIXELS = 16
_ROWS = 2000  # at a time
_LONGEST_LINE = 10_000_000  # characters
_MOST_COLUMNS = 3 * 224 * 224 + 10


class CsvSource(LocalSource):
    """`path` is the file, gzipped or not, its address, or a folder of such files."""

    kind: Literal["csv"]
    # The column with the class; None: one that is called label or the like, else the first.
    label_column: str | None = None


def batches(source: CsvSource, data: "DataSection", home: Path, listing: Listing) -> Iterator[Batch]:
    """The images in the order of the rows."""
    found = 0
    for path, name, opened_file in tables(source.path, data, home, (".csv", ".csv.gz")):
        with opened_file as file, _text(file, name, data.max_bytes) as lines:
            header = _header(lines, name)
            label = _label_column(header, source.label_column, is_alone=path is None)
            if label is None:
                if path is None:
                    raise PipelineError(
                        f"{name} has no column of labels: it has {', '.join(header[:9])}; say which with "
                        "--set label_column=NAME"
                    )
                listing.skipped.append((name, "has no column of labels"))
                continue
            found += 1
            split = split_of(PurePosixPath(name).stem) if path else None
            yield from _rows(lines, header, label, split, name, (path or Path(home, source.path)).parent)
    if not found:
        raise PipelineError("it has no CSV file with a column of labels")


load = loader(batches)


def has_images(path: Path) -> bool:
    """Whether a file is a table with labels beside pixels or names of files."""
    try:
        with path.open("rb") as file, _text(file, path.name, 10**9) as lines:
            header = _header(lines, path.name)
    except PipelineError:
        return False
    has_pixels = len(header) >= _FEWEST_PIXELS
    return _label_column(header, None) is not None and (has_pixels or _column(header, _FILES) is not None)


@contextmanager
def _text(file: IO[bytes], name: str, max_bytes: int) -> "Iterator[_Lines]":
    try:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        with gzip.GzipFile(fileobj=file) if packed else file as unpacked:
            text = io.TextIOWrapper(unpacked, encoding="utf-8-sig", newline=None)
            yield _Lines(text, name, max_bytes)
            text.detach()
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise PipelineError(f"{name} is not a whole gzip file: {error}") from None
    except UnicodeDecodeError:
        raise PipelineError(f"{name} is no text in UTF-8") from None


class _Lines:
    """Lines of a text that is not longer than it may be."""

    def __init__(self, text: io.TextIOWrapper, name: str, max_bytes: int) -> None:
        self._text, self._name, self._left = text, name, max_bytes

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(_LONGEST_LINE):
            self._left -= len(line)
            if self._left < 0 or len(line) == _LONGEST_LINE:
                raise PipelineError(
                    f"{self._name} unpacks to more than data.max_bytes, or has a line without end"
                )
            if line.strip():
                yield line


def _header(lines: _Lines, name: str) -> list[str]:
    for line in lines:
        try:
            header = [column.strip() for column in next(csv.reader([line]))]
        except csv.Error as error:
            raise PipelineError(f"{name}: its first line is no row of a table: {error}") from None
        if len(header) > _MOST_COLUMNS:
            raise PipelineError(f"{name} has {len(header):,} columns, more than any image has pixels")
        if all(re.fullmatch(r"[-\d.]+", column) for column in header):
            raise PipelineError(
                f"{name} has no names of columns in its first line: write one: label,pixel0,pixel1,..."
            )
        if len(header) < 2:
            raise PipelineError(
                f"{name} has one column: it needs a label and pixels, or a label and file names"
            )
        return header
    raise PipelineError(f"{name} is empty")


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    """The place of the first of the names that the header has."""
    lowered = [column.lower() for column in header]
    return next((lowered.index(name) for name in names if name in lowered), None)


def _label_column(header: Sequence[str], chosen: str | None, *, is_alone: bool = False) -> int | None:
    """The place of the column with the class; of a table of files that is alone, its only other column."""
    if chosen is not None:
        return header.index(chosen) if chosen in header else None
    named = _column(header, _LABELS)
    if named is not None:
        return named
    others = [at for at, name in enumerate(header) if name.lower() not in (*_FILES, *_SPLIT, *_NUMBERS)]
    if _column(header, _FILES) is not None:
        return others[0] if is_alone and len(others) == 1 else None
    is_pixel = not others or re.fullmatch(r"pixel.?\d+|\d+x\d+", header[others[0]].lower())
    return None if is_pixel else others[0]


def _rows(
    lines: _Lines, header: list[str], label: int, split: Split | None, name: str, folder: Path
) -> Iterator[Batch]:
    file_column, splits = _column(header, _FILES), _column(header, _SPLIT)
    if file_column is not None and len(header) < _FEWEST_PIXELS:
        yield from _of_files(lines, label, file_column, splits, name, split, folder)
        return
    numbers = _column(header, _NUMBERS)
    pixels = [at for at in range(len(header)) if at not in (label, splits, numbers)]
    shape = shape_of(len(pixels), name)
    iterator, row = iter(lines), 0
    while chunk := list(islice(iterator, _ROWS)):
        levels = as_levels(_numbers(chunk, pixels, len(header), name, row), name)
        labels = _texts(chunk, label)
        if (labels == "").any():
            raise PipelineError(f"{name} has no label in row {row + int((labels == '').argmax()) + 2}")
        if all(text.lstrip("-").isdigit() for text in labels):
            labels = labels.astype(np.int64)
        images = levels.reshape(-1, *shape)
        of = _texts(chunk, splits) if splits is not None else None
        for part in sorted(set(of)) if of is not None else [None]:
            chosen = np.flatnonzero(of == part) if of is not None else np.arange(len(images))
            names = [f"{name} row {row + at + 2}" for at in chosen]
            yield Batch(names, images[chosen], labels[chosen], split_of(part) if part else split)
        row += len(chunk)


def _numbers(chunk: list[str], columns: list[int], width: int, name: str, row: int) -> NDArray[np.generic]:
    for at, line in enumerate(chunk):
        commas = line.count(",")
        if commas != width - 1 and '"' not in line:
            raise PipelineError(f"{name} has {commas + 1} fields in row {row + at + 2}, and {width} columns")
    for dtype in (np.uint8, np.float64):
        try:
            return np.loadtxt(chunk, dtype, None, ",", usecols=columns, ndmin=2, quotechar='"')
        except (ValueError, OverflowError) as error:
            reason = str(error)
    # NumPy counts rows from 0, and from the first of the chunk.
    said = re.sub(r"at row (\d+)", lambda found: f"in row {int(found[1]) + row + 2}", reason)
    raise PipelineError(f"{name}: {said.rstrip('.')}")


def _texts(chunk: list[str], column: int) -> NDArray[np.str_]:
    return np.loadtxt(chunk, np.str_, None, ",", usecols=[column], ndmin=1, quotechar='"')


def _of_files(
    lines: _Lines,
    label: int,
    file_column: int,
    splits: int | None,
    name: str,
    split: Split | None,
    folder: Path,
) -> Iterator[Batch]:
    inside = folder.resolve()
    reader = csv.reader(iter(lines))
    while chunk := list(islice(reader, PICTURES)):
        by_split: dict[Split | None, list[list[str]]] = {}
        for row in chunk:
            if len(row) <= max(label, file_column, splits or 0) or not row[label].strip():
                raise PipelineError(f"{name} has no label or no file name in line {reader.line_num + 1}")
            of = split_of(row[splits]) if splits is not None else split
            by_split.setdefault(of, []).append(row)
        for of, rows in by_split.items():
            files = [row[file_column].strip() for row in rows]
            for file in files:
                if not (inside / file).resolve().is_relative_to(inside):
                    raise PipelineError(
                        f"{name} names {file}, which lies outside of the table's folder: refused"
                    )
            yield Batch(
                files, [str(folder / file) for file in files], [row[label].strip() for row in rows], of
            )
