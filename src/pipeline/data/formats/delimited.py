"""Tables as text, gzipped or not: read their lines, within limits, and the names of their columns."""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from pipeline.errors import PipelineError

ENDINGS = (".csv", ".csv.gz")
# Read only if there are no files with the endings above.
TAB_ENDINGS = (".tsv", ".tsv.gz")
SEPARATORS = (",", ";", "\t")
_LONGEST_LINE = 10_000_000  # characters
_MOST_COLUMNS = 3 * 224 * 224 + 10


class Lines:
    """The lines of a text without the empty ones, with an error if there are more than `max_bytes`."""

    def __init__(self, text: io.TextIOWrapper, name: str, max_bytes: int) -> None:
        self.name = name
        self._text, self._left = text, max_bytes

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(_LONGEST_LINE):
            self._left -= len(line)
            if self._left < 0 or len(line) == _LONGEST_LINE:
                raise PipelineError(
                    f"{self.name} unpacks to more than data.max_bytes, or has an endless line"
                )
            if line.strip():
                yield line


@contextmanager
def lines_of(file: IO[bytes], name: str, max_bytes: int) -> Iterator[Lines]:
    """Open a file as the lines of a table.

    The file is seekable, and is called `name` in messages.

    Raises:
        PipelineError: If it is not UTF-8 text or not a table, or exceeds the limits.
    """
    # A row may have a whole image in one field.
    csv.field_size_limit(_LONGEST_LINE)
    try:
        with unzipped(file) as unpacked:
            text = io.TextIOWrapper(unpacked, encoding="utf-8-sig", newline=None)
            yield Lines(text, name, max_bytes)
            text.detach()
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise PipelineError(f"{name} is not a complete gzip file: {error}") from None
    except UnicodeDecodeError:
        raise PipelineError(f"{name} is not UTF-8 text: save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise PipelineError(f"{name} is not a table: {error}") from None


def unzipped(file: IO[bytes]) -> IO[bytes] | gzip.GzipFile:
    """Return a seekable file, which is at its start, so that its content is unzipped if it is gzipped."""
    is_packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return gzip.GzipFile(fileobj=file) if is_packed else file


def separator_of(line: str) -> str:
    """Return the separator of the columns: a comma if the first line has one, else a semicolon or a tab."""
    bare = re.sub(r'"[^"]*"', "", line)
    return next((separator for separator in SEPARATORS if separator in bare), ",")


def header_of(lines: Lines) -> tuple[list[str], str]:
    """Read the names of the columns from the first line, and return them with the separator.

    Raises:
        PipelineError: If there are no lines, or the first one does not have the names.
    """
    for line in lines:
        separator = separator_of(line)
        try:
            header = [column.strip() for column in next(csv.reader([line], delimiter=separator))]
        except csv.Error as error:
            raise PipelineError(f"{lines.name}: its first line is not a row of a table: {error}") from None
        if len(header) > _MOST_COLUMNS:
            raise PipelineError(
                f"{lines.name} has {len(header):,} columns, more than an image may have pixels"
            )
        if all(re.fullmatch(r"[-\d.]+", column) for column in header):
            raise PipelineError(
                f"{lines.name} has no column names in its first line: add a line label,pixel0,pixel1,..."
            )
        return header, separator
    raise PipelineError(f"{lines.name} is empty")
