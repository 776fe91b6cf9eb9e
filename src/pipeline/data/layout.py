"""Determine the class and split of each file of a folder or archive, by its folders, its name or a table."""

import csv
import functools
import io
import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from pipeline.data.batches import SPLIT_COLUMNS, SPLIT_NAMES, Listing, Split, split_in_row, split_of
from pipeline.data.formats.delimited import separator_of
from pipeline.errors import PipelineError

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
Parts = tuple[str, ...]

_LABELS = ("label", "labels", "class", "category", "target")


@dataclass(frozen=True)
class Place:
    """The class of an image and its split, which is None if the source does not say."""

    label: str
    split: Split | None


@dataclass(frozen=True)
class Layout:
    """How the files are laid out."""

    places: Mapping[str, Place]
    # Files without a class, and why.
    unplaced: Mapping[str, str]
    # The names of all classes, including those without files, in natural order.
    classes: tuple[str, ...]
    # Human-readable.
    description: str


def arrange(files: Sequence[str], listing: Listing, known: Collection[str] = ()) -> Layout:
    """Find the class and the split of each file.

    The paths have "/" and are in any order; classes that are `known` are kept as they are if a table has
    them.

    Raises:
        PipelineError: If two folders have the same name, or a table is damaged or lacks a column.
    """
    split_in: dict[str, Split] = {}
    if listing.pattern:
        rows = {file: match[1] for file in files if (match := re.search(listing.pattern, file)) and match[1]}
        label_source = "their names"
    else:
        rows, split_in = _from_tables(listing.tables)
        rows = dict(zip(rows, map(str, without_points(list(rows.values()), known)), strict=True))
        label_source = ", ".join(sorted(listing.tables))
    folder_of = {path: _parts(path) for path in {file.rpartition("/")[0] for file in files}}
    folders = {_parts(folder) for folder in listing.folders}
    folders |= {folder[:depth] for folder in folder_of.values() for depth in range(1, len(folder) + 1)}
    depth = _wrapping(folders, folder_of.values())
    splits = _splits(folders, folder_of.values(), depth, has_labels=bool(rows))

    def class_of(folder: Parts) -> str | None:
        above = splits.get(folder[depth]) if len(folder) > depth else None
        where = above.depth if above else depth
        return folder[where] if len(folder) > where and (above or not splits) else None

    reason = "is not in a class folder"
    if rows:
        reason = "has no class in its name" if listing.pattern else f"is not in {label_source}"

    places: dict[str, Place] = {}
    unplaced: dict[str, str] = {}
    place = functools.cache(Place)  # shared by all files of a class, since there may be a million
    for file in files:
        folder = folder_of[file.rpartition("/")[0]]
        above = splits.get(folder[depth]) if len(folder) > depth else None
        label = rows.get(file) if rows else class_of(folder)
        if label is None:
            unplaced[file] = reason
        else:
            places[file] = place(_normal(label), split_in.get(file) or (above and above.split))
    missing = [name for name in rows if name not in places]
    unplaced |= dict.fromkeys(missing, "is named in a table, but does not exist")
    named = {place.label for place in places.values()}
    if not rows:
        named |= _apart({name for folder in folders if (name := class_of(folder)) is not None})
    description = f"labelled by {label_source}" if rows else "one folder for each class"
    if splits:
        description += f", below {', '.join(sorted(splits))}"
    return Layout(places, unplaced, natural_order(named), description)


class _Above(NamedTuple):
    """A folder of a split."""

    split: Split
    # The depth of the class folders in it.
    depth: int


def _splits(
    folders: set[Parts], with_files: Collection[Parts], depth: int, *, has_labels: bool
) -> dict[str, _Above]:
    """Return which folders at a depth are those of splits; `has_labels` says that folders are no classes.

    Either all with pictures are called train, val or test, or one has such a word in its name, as in
    seg_train, and another one that of another split; then pictures in further folders have no class.
    """
    inner: dict[str, set[str]] = {name: set() for name in _names(folders, depth)}
    for folder in folders:
        if len(folder) > depth + 1:
            inner[folder[depth]].add(folder[depth + 1])
    named = {name: split for name in inner if (split := split_of(name))}
    filled = {folder[depth] for folder in with_files if len(folder) > depth}
    # Folders called train and test with images directly in them are classes, not splits.
    has_folders = {named.get(name) for name in inner if inner[name] or has_labels}
    are_all = bool(has_folders) and all(name.lower() in SPLIT_NAMES for name in filled)
    if not are_all and not ("train" in has_folders and len(set(named.values())) > 1):
        return {}
    # Archives often have a folder twice, as in seg_train/seg_train/cat.
    twice = {name for name in named if [split_of(only) for only in inner[name]] == [named[name]]}
    return {name: _Above(split, depth + 1 + (name in twice)) for name, split in named.items()}


def without_points(labels: Sequence[Any], known: Collection[str]) -> Sequence[Any]:
    """Replace labels such as `0.0` with 0 if all labels are numbers; otherwise return them unchanged.

    pandas writes integers like that if a value in their column was missing.

    If labels with a point are among the `known` classes, an earlier version has pinned them, and all labels
    are kept as they are.

    Raises:
        PipelineError: If all are numbers, but some are not whole.
    """
    distinct = {str(label) for label in labels}
    with_point = {label for label in distinct if "." in label}
    if not with_point or with_point & set(known):
        return labels
    try:
        numbers = {label: float(label) for label in distinct}
    except ValueError:
        return labels
    if odd := sorted(label for label, number in numbers.items() if not number.is_integer()):
        raise PipelineError(
            f"its labels are numbers, but not all whole, such as {odd[0]}: use texts or whole numbers"
        )
    return [int(numbers[str(label)]) for label in labels]


def natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sort names: by number if all are numbers, else by their characters."""
    names = set(names)
    if all(name.isascii() and name.isdigit() for name in names):
        # Not by `int`, which refuses more than 4,300 digits.
        return tuple(sorted(names, key=lambda name: (len(name.lstrip("0")), name.lstrip("0"), name)))
    return tuple(sorted(names))


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _apart(names: set[str]) -> set[str]:
    """Return the names in Unicode normal form C."""
    seen: dict[str, str] = {}
    for name in sorted(names):
        if other := seen.get(_normal(name)):
            raise PipelineError(
                f"two folders are both called {_normal(name)!r}, once as {other!a} and once as {name!a}: "
                "rename one, or put their pictures together"
            )
        seen[_normal(name)] = name
    return set(seen)


def _parts(folder: str) -> Parts:
    return tuple(folder.split("/")) if folder else ()


def _names(folders: set[Parts], depth: int) -> set[str]:
    """Return the names of the folders at a depth."""
    return {folder[depth] for folder in folders if len(folder) == depth + 1}


def _wrapping(folders: set[Parts], with_files: Collection[Parts]) -> int:
    """Return the number of nested folders that contain everything else; archives often have one."""
    depth = 0
    while len(here := _names(folders, depth)) == 1 and _names(folders, depth + 1):
        [name] = here
        if name.lower() in SPLIT_NAMES or any(len(folder) <= depth + 1 for folder in with_files):
            break
        depth += 1
    return depth


def _from_tables(tables: Mapping[str, bytes]) -> tuple[dict[str, str], dict[str, Split]]:
    """Return {path: class} from all tables, which is empty if none of them has a column for the class.

    The second result is {path: split} of those for which there is one.
    """
    labels: dict[str, str] = {}
    splits: dict[str, Split] = {}
    for path, content in sorted(tables.items()):
        rows = [
            {key and key.strip().lower(): value for key, value in row.items()} for row in _rows(path, content)
        ]
        columns = {column for row in rows for column in row}
        if "file_name" not in columns:
            raise PipelineError(f"{path} has no column file_name")
        column = next((name for name in SPLIT_COLUMNS if name in columns), None)
        others = columns - {"file_name", column, None}  # None has what a row of CSV has more than the header.
        chosen = next((name for name in _LABELS if name in others), None)
        if chosen is None and len(others) == 1:
            [chosen] = others
        if chosen is None:
            continue
        for row in rows:
            name, label = row.get("file_name"), row.get(chosen)
            text = label.decode(errors="replace") if isinstance(label, bytes) else str(label).strip()
            if not name or label is None or not text:
                raise PipelineError(f"{path} has a row without {'a label' if name else 'file_name'}")
            if isinstance(label, list | dict):
                raise PipelineError(f"{path} has several labels for {name}, and an image has one class")
            file = (PurePosixPath(path).parent / str(name).replace("\\", "/")).as_posix()
            if labels.setdefault(file, text) != text:
                raise PipelineError(f"{path} has several labels for {name}, and an image has one class")
            if split := split_in_row(str((column and row.get(column)) or ""), f"{path}, for {name},"):
                splits[file] = split
    return labels, splits


def _rows(path: str, content: bytes) -> Iterable[dict[str, Any]]:
    try:
        if path.endswith(".parquet"):
            import pyarrow.parquet

            table: list[dict[str, Any]] = pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
            return table
        text = content.decode("utf-8-sig")
        if path.endswith(".jsonl"):
            lines = [json.loads(line) for line in text.split("\n") if line.strip()]
            if odd := [number for number, row in enumerate(lines, 1) if not isinstance(row, dict)]:
                raise ValueError(f'row {odd[0]} is not as {{"file_name": ...}}')  # noqa: TRY301
            return lines
        separator = separator_of(text.partition("\n")[0])
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True))
    except (ValueError, csv.Error, OSError, RecursionError) as error:
        raise PipelineError(f"{path} can't be read as a table: {error}") from None
