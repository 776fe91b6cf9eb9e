"""A zip or tar archive of a folder of pictures, read as a stream without unpacking it to disk."""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Literal

from pipeline.data.batches import Batch, Listing, PictureSource, in_batches, is_hidden, opened
from pipeline.data.collect import loader
from pipeline.data.formats.tar import WholeMember
from pipeline.data.formats.zip import members
from pipeline.data.layout import TABLES
from pipeline.data.reader import BEGINNINGS
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection

_LARGEST = 2**28  # bytes that the file of a picture may have
_LINK = "is a link"


class ArchiveSource(PictureSource):
    """`path` is the archive, or its address."""

    kind: Literal["archive"]


def batches(source: ArchiveSource, data: "DataSection", home: Path, listing: Listing) -> Iterator[Batch]:
    """Yield the pictures in the order of the archive."""
    limit = min(data.max_bytes, _LARGEST)
    listing.pattern = source.label_pattern
    with opened(source.path, data, home) as file:
        try:
            # In this order, since a tar archive may end with a zip archive.
            is_tar = tarfile.is_tarfile(file) or not zipfile.is_zipfile(file)
            read = _of_tar if is_tar else _of_zip
            file.seek(0)
            yield from in_batches(read(file, listing, limit))
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError) as error:
            raise PipelineError(f"it is not a complete zip or tar archive: {error}") from None
        except NotImplementedError as error:
            raise PipelineError(f"it is compressed in a way that Python can't read: {error}") from None


load = loader(batches)


def _of_zip(file: IO[bytes], listing: Listing, limit: int) -> Iterator[tuple[str, bytes, int]]:
    for archive, member in members(file):
        name = _safe(_decoded(member))
        if is_hidden(name):
            continue
        if member.is_dir():
            listing.folders.append(name)
            continue
        if member.flag_bits & 1:
            raise PipelineError(f"{name} in it is encrypted: unpack it first, and give the folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            listing.skipped.append((name, _LINK))
            continue
        with archive.open(member) as content:
            yield from _content(name, content, member.file_size, listing, limit)


def _of_tar(file: IO[bytes], listing: Listing, limit: int) -> Iterator[tuple[str, bytes, int]]:
    with tarfile.open(fileobj=file, mode="r|*", tarinfo=WholeMember) as archive:
        for member in archive:
            archive.members.clear()  # type: ignore[attr-defined]
            name = _safe(member.name)
            if is_hidden(name):
                continue
            if member.isdir():
                listing.folders.append(name)
            elif not member.isfile():
                listing.skipped.append((name, _LINK if member.issym() or member.islnk() else "is a device"))
            elif content := archive.extractfile(member):
                yield from _content(name, content, member.size, listing, limit)


def _decoded(member: zipfile.ZipInfo) -> str:
    """Return the name of a member, which on macOS is UTF-8 without the flag that says so."""
    if member.flag_bits & 0x800:
        return member.filename
    try:
        return member.filename.encode("cp437").decode()
    except UnicodeError:
        return member.filename


def _safe(name: str) -> str:
    """Return the name of a member with "/", or raise an error if it would be outside of the archive."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise PipelineError(f"it contains {name}, which is outside of the archive: refused")
    return path.as_posix()


def _content(
    name: str, file: IO[bytes], size: int, listing: Listing, limit: int
) -> Iterator[tuple[str, bytes, int]]:
    """Yield a picture, or add a table to the listing; of other files only the beginning is read."""
    begin = file.read(16)
    is_table = PurePosixPath(name).name in TABLES
    if not is_table and not begin.startswith(BEGINNINGS):
        # The reader will report why it is not a picture.
        yield name, begin, 16
    elif size > limit:
        listing.skipped.append((name, f"unpacks to more than {limit:,} bytes"))
    elif is_table:
        listing.tables[name] = begin + file.read()
    else:
        yield name, begin + file.read(), size
