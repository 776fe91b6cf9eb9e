import io
import struct
import tarfile
import tracemalloc

import numpy as np
import pytest

from pipeline.data.packages import read_archive
from pipeline.errors import PipelineError

LABELS = np.array([0, 1, 1], np.uint8)
CONTENT = b"\0\0\x08\x01" + struct.pack(">I", 3) + LABELS.tobytes()
MAX_BYTES = 100_000


def member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", target: str = "") -> tuple:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content), target
    return info, io.BytesIO(content)


def archived(*members: tuple) -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, content)
    file.seek(0)
    return file


def test_idx_files_are_found_anywhere_in_an_archive():
    archive = archived(
        member("package", tarfile.DIRTYPE),
        member("package/readme.md", content=b"hello"),
        member("package/data/train-labels-idx1-ubyte", content=CONTENT),
    )
    arrays = read_archive(archive, "some package", MAX_BYTES)
    assert list(arrays) == ["train_labels"]
    np.testing.assert_array_equal(arrays["train_labels"], LABELS)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (member("../x", content=b"x"), "outside of the package"),
        (member("package/../../train-labels-idx1-ubyte", content=CONTENT), "outside of the package"),
        (member("/etc/x", content=b"x"), "outside of the package"),
        (member("package/x", tarfile.SYMTYPE, target="/etc/passwd"), "a link or a device"),
        (
            member("package/train-images-idx3-ubyte", tarfile.SYMTYPE, target="/etc/passwd"),
            "a link or a device",
        ),
        (member("package/x", tarfile.LNKTYPE, target="package/y"), "a link or a device"),
        (member("package/x", tarfile.CHRTYPE), "a link or a device"),
        (member("package/x", tarfile.FIFOTYPE), "a link or a device"),
    ],
)
def test_an_archive_with_one_unsafe_member_is_refused(bad, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archive = archived(member("package/train-labels-idx1-ubyte", content=CONTENT), bad)
    with pytest.raises(PipelineError, match=f"some package .*{reason}: refused"):
        read_archive(archive, "some package", MAX_BYTES)
    assert not list(tmp_path.iterdir())


def test_an_archive_that_unpacks_to_too_much_is_refused_while_it_is_read():
    archive = archived(member("package/big", content=bytes(20_000_000)))
    tracemalloc.start()
    with pytest.raises(PipelineError, match=r"some package unpacks to more than data\.max_bytes"):
        read_archive(archive, "some package", MAX_BYTES)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    "content", [b"no archive at all" * 100, archived(member("a", content=CONTENT)).read()[:515]]
)
def test_a_damaged_archive_is_refused(content):
    with pytest.raises(PipelineError, match="some package is not a complete archive"):
        read_archive(io.BytesIO(content), "some package", MAX_BYTES)
