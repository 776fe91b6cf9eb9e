"""CSV files with one image per row, as pixels or as a file name; one file, or a folder with one per split."""

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.batches import (
    PICTURES,
    Batch,
    Listing,
    LocalSource,
    Split,
    expanded,
    split_in_row,
    split_of,
    tables,
)
from pipeline.data.collect import loader
from pipeline.data.formats.delimited import ENDINGS, TAB_ENDINGS, Lines, lines_of
from pipeline.data.pictures import Pictures, split_above
from pipeline.data.pixels import as_levels, shape_of
from pipeline.data.table import Table, is_example, named_column, table_of
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection

_LIST = str.maketrans("[],;", "    ")
_ROWS = 2000  # read at a time
_CHARACTERS = 2**26  # that the rows read at a time may have, approximately


class CsvSource(LocalSource):
    """`path` is the file, gzipped or not, its address, or a folder of such files."""

    kind: Literal["csv"]
    # The column with the class. If None, the one that is called label or similar, or else the first.
    label_column: str | None = None


def batches(source: CsvSource, data: "DataSection", home: Path, listing: Listing) -> Iterator[Batch]:
    """Yield the images in the order of the rows."""
    files = [*tables(source.path, data, home, ENDINGS)] or [*tables(source.path, data, home, TAB_ENDINGS)]
    whole = home / expanded(source.path)
    pictures = Pictures(whole if whole.is_dir() else whole.parent)
    # If one table of a folder has a column called label, the others may be about anything.
    is_alone = not any(path and _opened(path, source.label_column).labels for path, _, _ in files)
    found = 0
    for path, name, open_file in files:
        if path and is_example(name):
            listing.skipped.append((name, "is a sample submission, whose labels mean nothing"))
            continue
        with open_file() as file, lines_of(file, name, data.max_bytes) as lines:
            table = table_of(lines, source.label_column, is_alone=is_alone)
            if path is None and not table.labels:
                raise PipelineError(table.without_labels(source.label_column))
            split: Split | None = None
            if path:
                inner = PurePosixPath(name)
                split = split_of(inner.stem) or split_of(inner.parent.name)
            is_other = path and is_alone and table.files is not None
            if not table.labels or (is_other and not table.names_one_of(pictures, split)):
                listing.skipped.append((name, "has no label column"))
                continue
            found += 1
            if table.files is None:
                yield from _of_pixels(table, split)
            else:
                yield from _of_files(table, split, (path or whole).parent, pictures)
    if not found:
        raise PipelineError(f"it has no CSV file with a {named_column(source.label_column)}")
    listing.skipped += [(picture, "is not named in any table") for picture in pictures.unnamed()]


load = loader(batches)


def has_images(path: Path) -> bool:
    """Check by its column names whether a file is a table of labels with either pixels or file names."""
    try:
        return _opened(path).has_images
    except PipelineError:
        return False


def labels_pictures(folder: Path) -> bool:
    """Check whether the classes of pictures are given by a table in a folder or a split, not by folders."""
    paths = [path for part in ("", "*/") for end in ENDINGS for path in sorted(folder.glob(f"{part}*{end}"))]
    pictures = Pictures(folder)
    if not paths or pictures.are_in_folders:
        return False
    for path in paths:
        split = None if path.parent == folder else split_of(path.parent.name)
        if path.is_file() and (path.parent == folder or split):
            try:
                table = _opened(path, is_alone=True)
                if table.labels and table.names_one_of(pictures, split):
                    return True
            except PipelineError:
                continue
    return False


def _opened(path: Path, chosen: str | None = None, *, is_alone: bool = False) -> Table:
    """Open a table, reading only its first lines."""
    with path.open("rb") as file, lines_of(file, path.name, 10**9) as lines:
        table = table_of(lines, chosen, is_alone=is_alone)
    return replace(table, labels=[]) if is_example(path.name) else table


# --- pixels -----------------------------------------------------------------------------------------


def _of_pixels(table: Table, split: Split | None) -> Iterator[Batch]:
    name, row = table.name, 2
    shape: tuple[int, ...] = ()
    for chunk in _chunks(table.lines):
        labels, parts, values = (_from_texts if table.has_texts else _from_columns)(chunk, table, row)
        levels = as_levels(values, name)
        shape = shape or shape_of(levels.shape[1], name)
        images = levels.reshape(-1, *shape)
        if (labels == "").any():
            raise PipelineError(f"{name} has no label in row {row + int((labels == '').argmax())}")
        for part in sorted(set(parts)) if parts is not None else [None]:
            chosen = np.flatnonzero(parts == part) if parts is not None else np.arange(len(images))
            of = (split_in_row(part, f"{name} row {row + chosen[0]}") if part else None) or split
            classes = [_class(text) for text in labels[chosen]]
            yield Batch([f"{name} row {row + at}" for at in chosen], images[chosen], classes, of)
        row += len(chunk)


def _class(text: str) -> int | str:
    """Return the class that a label means, whatever the labels of other rows are."""
    return int(text) if re.fullmatch("-?[0-9]{1,18}", text) else str(text)


def _chunks(lines: Lines) -> Iterator[list[str]]:
    chunk: list[str] = []
    held = 0
    for line in lines:
        chunk.append(line)
        held += len(line)
        if len(chunk) == _ROWS or held > _CHARACTERS:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


_Columns = tuple[NDArray[Any], NDArray[np.str_] | None, NDArray[np.generic]]  # labels, splits, pixels


def _from_columns(chunk: list[str], table: Table, row: int) -> _Columns:
    width, separator = len(table.header), table.separator
    for at, line in enumerate(chunk, row):
        fields = line.count(separator) + 1
        if fields != width and '"' not in line:
            raise PipelineError(f"{table.name} has {fields} fields in row {at}, and {width} columns")
    values = _numbers(chunk, table.name, row, separator, table.pixels)

    def texts(column: int) -> NDArray[np.str_]:
        return np.loadtxt(chunk, np.str_, None, separator, usecols=[column], ndmin=1, quotechar='"')

    return texts(table.labels[0]), None if table.splits is None else texts(table.splits), values


def _from_texts(chunk: list[str], table: Table, row: int) -> _Columns:
    rows = list(csv.reader(chunk, delimiter=table.separator))
    for at, fields in enumerate(rows, row):
        if len(fields) != len(table.header):
            raise PipelineError(
                f"{table.name} has {len(fields)} fields in row {at}, and {len(table.header)} columns"
            )
    # Lists as printed by Python or NumPy have brackets and commas.
    texts = [fields[table.pixels[0]].translate(_LIST) for fields in rows]
    counts = [len(text.split()) for text in texts]
    if odd := [at for at, count in enumerate(counts) if count != counts[0] or not count]:
        raise PipelineError(
            f"{table.name} has {counts[odd[0]]} pixels in row {row + odd[0]}, and {counts[0]} in row {row}"
        )

    def stripped(column: int) -> NDArray[np.str_]:
        return np.array([fields[column].strip() for fields in rows], np.str_)

    parts = None if table.splits is None else stripped(table.splits)
    return stripped(table.labels[0]), parts, _numbers(texts, table.name, row)


def _numbers(
    lines: list[str], name: str, row: int, separator: str | None = None, columns: list[int] | None = None
) -> NDArray[np.generic]:
    for dtype in (np.uint8, np.float64):
        try:
            return np.loadtxt(lines, dtype, None, separator, usecols=columns, ndmin=2, quotechar='"')
        except (ValueError, OverflowError) as error:
            reason = str(error)
    # NumPy counts rows from 0, starting with the first of these lines.
    corrected = re.sub(r"at row (\d+)", lambda match: f"in row {int(match[1]) + row}", reason)
    raise PipelineError(f"{name}: {corrected.rstrip('.')}")


# --- file names -------------------------------------------------------------------------------------


def _of_files(table: Table, split: Split | None, folder: Path, pictures: Pictures) -> Iterator[Batch]:
    name, splits, files = table.name, table.splits, table.files or 0
    rows, line = chain(table.first, table.rows()), 1
    while chunk := list(islice(rows, PICTURES)):
        by_split: dict[Split | None, list[tuple[str, str, str]]] = {}
        for row in chunk:
            line += 1
            if len(row) <= max(*table.labels, files, splits or 0) or not (label := table.class_of(row)):
                raise PipelineError(f"{name} has no label or no file name in line {line}")
            of = (split_in_row(row[splits], f"{name} line {line}") if splits is not None else None) or split
            file = row[files].strip()
            try:
                called, path = pictures.locate(folder, file, of)
            except ValueError:
                raise PipelineError(
                    f"{name} names {file}, which is outside of the table's folder: refused"
                ) from None
            except OSError as error:
                raise PipelineError(f"{name} names {file[:60]} in line {line}: {error.strerror}") from None
            of = of or split_above(called, label)
            by_split.setdefault(of, []).append((called, str(path), label))
        for of, located in by_split.items():
            names, paths, labels = zip(*located, strict=True)
            yield Batch(names, paths, labels, of)
