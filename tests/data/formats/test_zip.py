"""The members of zip archives of any size and form, as the standard library finds them."""

import io
import zipfile

import pytest

from pipeline.data.formats.zip import members

MANY = 30_000  # members, whose table is read in three pieces


def archive_of(count, file=None, comment=b""):
    file = file or io.BytesIO()
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.mkdir("empty")
        for number in range(count):
            archive.writestr(f"{'Katze ä' if number % 2 else 'dog'}/{number}.png", b"%d" % number)
        archive.comment = comment
    return file


def described(member):
    return (member.filename, member.header_offset, member.CRC, member.file_size, member.external_attr)


@pytest.mark.parametrize(
    "file",
    [
        lambda: archive_of(0),
        lambda: archive_of(3, comment=b"c" * 60_000),
        lambda: archive_of(3, io.BytesIO(b"#!/bin/sh\n" * 30)),
        lambda: archive_of(MANY),
        lambda: archive_of(70_000),  # more than 16 bits count
    ],
    ids=["none", "with a comment", "behind a program", "in pieces", "of 64 bits"],
)
def test_all_members_are_found_and_read(file):
    file = file()
    with zipfile.ZipFile(file) as whole:
        wanted = [described(member) for member in whole.infolist()]
    found = []
    for archive, member in members(file):
        found.append(described(member))
        if not member.is_dir() and len(found) % 1000 in (1, 2):
            assert archive.read(member) == member.filename.rpartition("/")[2].removesuffix(".png").encode()
    assert found == wanted


def test_an_archive_of_more_than_4_gigabytes_is_read(tmp_path):
    with (tmp_path / "large.zip").open("w+b") as file:
        file.truncate(5 * 2**30)  # takes no space
        archive_of(3, file)
        assert [archive.read(member) for archive, member in members(file)] == [b"", b"0", b"1", b"2"]


def damaged(at, byte, mark=b"PK\x01\x02"):
    content = bytearray(archive_of(3).getvalue())
    content[content.rindex(mark) + at] = byte
    return content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no archive", "not a zip file"),
        (b"PK\x05\x06", "not a zip file"),
        (damaged(0, 0), "Bad magic number"),
        (damaged(29, 99), "Truncated"),  # a longer name
        (damaged(18, 255, b"PK\x05\x06"), "Bad offset"),
        (damaged(0, 0xFF, "ä".encode()), "is not UTF-8"),
    ],
)
def test_a_damaged_table_is_refused(content, reason):
    with pytest.raises(zipfile.BadZipFile, match=reason):
        list(members(io.BytesIO(content)))
