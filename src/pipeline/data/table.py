"""A table of images: which of its columns are labels, names of files, splits and pixels."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pipeline.data.batches import Split
from pipeline.data.formats.delimited import Lines, header_of
from pipeline.data.pictures import Pictures
from pipeline.errors import PipelineError

_LABELS = ("label", "labels", "class", "target", "category", "emotion", "digit")
_FILES = (
    *("file_name", "filename", "file", "image", "path", "filepath", "image_path"),
    *("image_id", "image_name", "id_code", "img", "file_path", "id"),
)
_SPLIT = ("split", "usage", "subset")
_NUMBERS = ("", "unnamed: 0", "id", "index")  # of the rows, as pandas and Kaggle write them
_TEXTS = ("pixels", "pixel")  # all numbers of an image as one text, as in FER2013
_FEWEST_PIXELS = 16
_FIRST = 100  # rows by which a table is known
_MARKS = {"0": False, "1": True, "0.0": False, "1.0": True}


@dataclass(frozen=True)
class Table:
    """One file, whose header was read, and of a table of files perhaps the first rows."""

    name: str
    lines: Lines
    header: Sequence[str]
    separator: str
    # The column with the class; several: one for each class, with a 1 for that of the image.
    labels: Sequence[int]
    # The column with the names of files; None: it has pixels.
    files: int | None
    first: Sequence[Sequence[str]]  # rows of a table that is alone

    def rows(self) -> Iterator[list[str]]:
        """Those that were not read yet."""
        return csv.reader(iter(self.lines), delimiter=self.separator)

    @property
    def splits(self) -> int | None:
        """The column with the split."""
        return _column(self.header, _SPLIT)

    @property
    def pixels(self) -> list[int]:
        """The columns with pixels."""
        known = (*self.labels, self.splits, _column(self.header, _NUMBERS))
        return [at for at in range(len(self.header)) if at not in known]

    @property
    def has_texts(self) -> bool:
        """Whether all pixels are in one column."""
        return [self.header[at].lower() in _TEXTS for at in self.pixels] == [True]

    @property
    def has_images(self) -> bool:
        """Whether it has labels, and by the names of its columns images."""
        return bool(self.labels) and (
            self.files is not None or self.has_texts or len(self.header) >= _FEWEST_PIXELS
        )

    @property
    def without_labels(self) -> str:
        """The sentence that it has none."""
        if len(self.header) < 2:
            return f"{self.name} has one column: it needs a label and pixels, or a label and file names"
        return (
            f"{self.name} has no column of labels: it has {', '.join(self.header[:9])}; say which with "
            "--set label_column=NAME"
        )

    def names_one_of(self, pictures: Pictures, split: Split | None) -> bool:
        """Whether one of the first rows names a picture that is there."""
        names = [
            row[self.files].strip() for row in self.first if self.files is not None and row[self.files :]
        ]
        return any(name and pictures.find(name, split) is not None for name in names)

    def class_of(self, row: Sequence[str]) -> str:
        """The class in a row; "": it has none.

        Raises:
            PipelineError: the row marks several classes.
        """
        if len(self.labels) == 1:
            return row[self.labels[0]].strip()
        marked = [self.header[at] for at in self.labels if _MARKS.get(row[at].strip(), True)]
        if len(marked) > 1:
            raise PipelineError(
                f"{self.name} has {row[self.files or 0].strip()} in several classes, "
                f"{' and '.join(marked[:2])}: an image has one class here"
            )
        return marked[0] if marked else ""


def table_of(lines: Lines, name: str, chosen: str | None = None, *, is_alone: bool = False) -> Table:
    """Find out what the columns of a table are.

    Args:
        lines: of the file, from the first on.
        name: to call it in a refusal.
        chosen: the name of the column with the class; None: by the names of the columns.
        is_alone: whether no other table says the classes: then the only column of a table of files that
            is called nothing known is the class, and several with 0 and 1 are one for each class.

    Raises:
        PipelineError: it has no header.
    """
    header, separator = header_of(lines, name)
    label = _label_column(header, chosen, is_alone=is_alone)
    files = _column(header, _FILES)
    if label is not None and len(header) >= _FEWEST_PIXELS:
        files = None
    if files is None:
        return Table(name, lines, header, separator, [] if label is None else [label], None, [])
    first = list(islice(csv.reader(iter(lines), delimiter=separator), _FIRST if is_alone else 0))
    labels = [] if label is None else [label]
    if label is None and chosen is None and is_alone:
        others = _others(header)
        values = {row[at].strip() for row in first if len(row) == len(header) for at in others}
        if len(others) > 1 and values and values <= _MARKS.keys():
            labels = others
    return Table(name, lines, header, separator, labels, files, first)


def is_example(name: str) -> bool:
    """Whether a file is what Kaggle calls a sample submission, whose labels mean nothing."""
    return re.search("(sample|example).?submission", name, re.IGNORECASE) is not None


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    """The place of the first of the names that the header has."""
    lowered = [column.lower() for column in header]
    return next((lowered.index(name) for name in names if name in lowered), None)


def _others(header: Sequence[str]) -> list[int]:
    """The places of the columns whose names say nothing of what they are."""
    known = (*_FILES, *_SPLIT, *_NUMBERS, *_TEXTS)
    return [at for at, name in enumerate(header) if name.lower() not in known]


def _label_column(header: Sequence[str], chosen: str | None, *, is_alone: bool) -> int | None:
    """The place of the column with the class; of a table of files that is alone, its only other column."""
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
