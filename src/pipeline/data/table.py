"""A table of images: determine which of its columns are labels, file names, splits and pixels."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pipeline.data.batches import SPLIT_COLUMNS, Split
from pipeline.data.formats.delimited import Lines, header_of
from pipeline.data.pictures import Pictures
from pipeline.data.pixels import FEWEST_PIXELS
from pipeline.errors import PipelineError

_LABELS = ("label", "labels", "class", "target", "category", "emotion", "digit")
_FILES = (
    *("file_name", "filename", "file", "image", "path", "filepath", "image_path"),
    *("image_id", "image_name", "id_code", "img", "file_path", "id"),
)
_NUMBERS = ("", "unnamed: 0", "id", "index")  # row numbers, as pandas and Kaggle write them
_TEXTS = ("pixels", "pixel")  # all pixels of an image in one text, as in FER2013
_FIRST = 100  # rows that are read to find out what the columns are
_MARKS = {"0": False, "1": True, "0.0": False, "1.0": True}


@dataclass(frozen=True)
class Table:
    """One file whose header was read; of a table of file names, the first rows may have been read too."""

    name: str
    lines: Lines
    header: Sequence[str]
    separator: str
    # The column with the class; if several, there is one for each class, with a 1 for that of the image.
    labels: Sequence[int]
    # The column with the file names, or None if the table has pixels.
    files: int | None
    first: Sequence[Sequence[str]]  # the rows that were already read, if the table is alone

    def rows(self) -> Iterator[list[str]]:
        """Yield the rows that have not been read yet."""
        return csv.reader(iter(self.lines), delimiter=self.separator)

    @property
    def splits(self) -> int | None:
        """The column with the split, if there is one."""
        return _column(self.header, SPLIT_COLUMNS)

    @property
    def pixels(self) -> list[int]:
        """The columns with pixels."""
        known = (*self.labels, self.splits, _column(self.header, _NUMBERS))
        return [at for at in range(len(self.header)) if at not in known]

    @property
    def has_texts(self) -> bool:
        """Whether all pixels of an image are in one column."""
        return [self.header[at].lower() in _TEXTS for at in self.pixels] == [True]

    @property
    def has_images(self) -> bool:
        """Whether it has labels and, judging by the names of its columns, images."""
        return bool(self.labels) and (
            self.files is not None or self.has_texts or len(self.header) >= FEWEST_PIXELS
        )

    def without_labels(self, chosen: str | None) -> str:
        """Return the message that it has no labels, or not the chosen column."""
        if len(self.header) < 2:
            return f"{self.name} has one column: it needs a label and pixels, or a label and file names"
        return (
            f"{self.name} has no {named_column(chosen)}: it has {', '.join(self.header[:9])}; choose one "
            "with --set label_column=NAME"
        )

    def names_one_of(self, pictures: Pictures, split: Split | None) -> bool:
        """Check whether one of the first rows names an existing picture."""
        names = [
            row[self.files].strip() for row in self.first if self.files is not None and row[self.files :]
        ]
        return any(name and pictures.find(name, split) is not None for name in names)

    def class_of(self, row: Sequence[str]) -> str:
        """Return the class in a row, or "" if it has none.

        Raises:
            PipelineError: If the row marks several classes.
        """
        if len(self.labels) == 1:
            return row[self.labels[0]].strip()
        marked = [self.header[at] for at in self.labels if _MARKS.get(row[at].strip(), True)]
        if len(marked) > 1:
            raise PipelineError(
                f"{self.name} has {row[self.files or 0].strip()} in several classes, "
                f"{' and '.join(marked[:2])}: an image must have one class"
            )
        return marked[0] if marked else ""


def table_of(lines: Lines, chosen: str | None, *, is_alone: bool) -> Table:
    """Determine what the columns of a table are.

    Without a chosen column, the class is found by the names of the columns. `is_alone` says that no other
    table has the classes: then in a table of file names, a single column of unknown meaning is the class, and
    several with 0 and 1 are one for each class.

    Raises:
        PipelineError: If it has no header.
    """
    header, separator = header_of(lines)
    label = _label_column(header, chosen, is_alone=is_alone)
    labels = [] if label is None else [label]
    files = _column(header, _FILES)
    if files is None or (labels and len(header) >= FEWEST_PIXELS):
        return Table(lines.name, lines, header, separator, labels, None, [])
    first = list(islice(csv.reader(iter(lines), delimiter=separator), _FIRST if is_alone else 0))
    if not labels and chosen is None and is_alone:
        others = _others(header)
        values = {row[at].strip() for row in first if len(row) == len(header) for at in others}
        if len(others) > 1 and values and values <= _MARKS.keys():
            labels = others
    return Table(lines.name, lines, header, separator, labels, files, first)


def named_column(chosen: str | None) -> str:
    """Return how a message calls the column with the class."""
    return f"column {chosen!r}" if chosen else "label column"


def is_example(name: str) -> bool:
    """Check whether a file is what Kaggle calls a sample submission, whose labels mean nothing."""
    return re.search("(sample|example).?submission", name, re.IGNORECASE) is not None


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    """Return the index of the first of the names that is in the header."""
    lowered = [column.lower() for column in header]
    return next((lowered.index(name) for name in names if name in lowered), None)


def _others(header: Sequence[str]) -> list[int]:
    """Return the indices of the columns whose names don't tell what they are."""
    known = (*_FILES, *SPLIT_COLUMNS, *_NUMBERS, *_TEXTS)
    return [at for at, name in enumerate(header) if name.lower() not in known]


def _label_column(header: Sequence[str], chosen: str | None, *, is_alone: bool) -> int | None:
    """Return the index of the column with the class; see `table_of`."""
    if len(header) < 2:
        return None
    if chosen is not None:
        return header.index(chosen) if chosen in header else None
    named = _column(header, _LABELS)
    if named is not None:
        return named
    others = _others(header)
    if _column(header, _FILES) is not None:
        return others[0] if is_alone and len(others) == 1 else None
    is_pixel = not others or re.fullmatch(r"pixel.?\d+|\d+x\d+", header[others[0]].lower())
    return None if is_pixel else others[0]
