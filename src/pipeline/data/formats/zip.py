"""Read the table of contents of a zip archive in pieces: for a million files it takes half a gigabyte."""

import io
import struct
import zipfile
from collections.abc import Iterator
from typing import IO

_PIECE = 2**20  # bytes of the table that are read at a time; an entry has at most 196,651
# The parts of the table, by PKWARE's APPNOTE.TXT: an entry, of which only the lengths of its variable fields
# are read here, and the three records at the end.
_ENTRY = struct.Struct("<4s24x3H12x")
_END = struct.Struct("<4s4H2LH")
_LOCATOR_64 = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY_MARK, _END_MARK, _LOCATOR_64_MARK, _END_64_MARK = b"PK\1\2", b"PK\5\6", b"PK\6\7", b"PK\6\6"


def members(file: IO[bytes]) -> Iterator[tuple[zipfile.ZipFile, zipfile.ZipInfo]]:
    """Yield the members of an archive in the order of its table of contents.

    Yields:
        An archive that can open the member until the next one is requested, and the member.

    Raises:
        BadZipFile: If it is not a zip archive, or its table is damaged.
        NotImplementedError: If Python can't read this kind of archive.
    """
    start, end, begin = _table(file)
    while start < end:
        file.seek(start)
        entries, count = _whole_entries(file.read(min(end - start, _PIECE)))
        try:
            archive = zipfile.ZipFile(_WithTable(file, start, _ended(entries, count, start - begin)))
        except UnicodeDecodeError as error:
            raise zipfile.BadZipFile(f"a name in its table of contents is not UTF-8: {error}") from None
        with archive:
            for member in archive.infolist():
                yield archive, member
        start += len(entries)


def _table(file: IO[bytes]) -> tuple[int, int, int]:
    """Return where the table starts and ends, and where the archive begins, since it may follow a program."""
    at = max(0, file.seek(0, io.SEEK_END) - _END.size - 2**16)
    file.seek(at)
    tail = file.read()
    found = tail.rfind(_END_MARK)
    if len(tail) - found < _END.size or found < 0:
        raise zipfile.BadZipFile("File is not a zip file")
    end = at + found
    *_, size, offset, _ = _END.unpack_from(tail, found)
    if tail[:found][-_LOCATOR_64.size :].startswith(_LOCATOR_64_MARK):
        end -= _LOCATOR_64.size + _END_64.size
        file.seek(max(0, end))
        record = file.read(_END_64.size)
        if not record.startswith(_END_64_MARK):
            raise zipfile.BadZipFile("the record at its end is damaged")
        *_, size, offset = _END_64.unpack(record)
    if end - size < offset:
        raise zipfile.BadZipFile("Bad offset for central directory")
    return end - size, end, end - size - offset


def _whole_entries(piece: bytes) -> tuple[bytes, int]:
    """Return a piece of the table up to its last complete entry, and the number of entries."""
    at = count = 0
    while len(piece) - at >= _ENTRY.size:
        mark, *lengths = _ENTRY.unpack_from(piece, at)
        if mark != _ENTRY_MARK:
            raise zipfile.BadZipFile("Bad magic number for central directory")
        after = at + _ENTRY.size + sum(lengths)
        if after > len(piece):
            break
        at, count = after, count + 1
    if not count:
        raise zipfile.BadZipFile("Truncated central directory")
    return piece[:at], count


def _ended(entries: bytes, count: int, offset: int) -> bytes:
    """Return entries as the table of a separate archive, which starts at `offset` in that archive."""
    size, after = len(entries), offset + len(entries)
    return b"".join(
        (
            entries,
            _END_64.pack(_END_64_MARK, _END_64.size - 12, 45, 45, 0, 0, count, count, size, offset),
            _LOCATOR_64.pack(_LOCATOR_64_MARK, 0, after, 1),
            _END.pack(_END_MARK, 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0),
        )
    )


class _WithTable(io.RawIOBase):
    """A file that is read as if it ended with another table, which begins at `start`."""

    def __init__(self, file: IO[bytes], start: int, table: bytes) -> None:
        self._file, self._start, self._table = file, start, table
        self._at, self._end = 0, start + len(table)

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0 if whence == io.SEEK_SET else self._end)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        stop = self._end if size is None or size < 0 else min(self._at + size, self._end)
        if self._at >= self._start:
            content = self._table[self._at - self._start : stop - self._start]
        else:
            self._file.seek(self._at)
            content = self._file.read(min(stop, self._start) - self._at)
        self._at += len(content)
        return content
