import gzip
import io
import struct
import tracemalloc

import numpy as np
import pytest

from pipeline.data.formats import idx
from pipeline.errors import PipelineError

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
MAX_BYTES = 1000


def encoded(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def read(content: bytes, name: str = "train-images-idx3-ubyte") -> np.ndarray:
    return idx.read(io.BytesIO(content), name, MAX_BYTES)


def test_images_and_labels_are_read_gzipped_or_not():
    np.testing.assert_array_equal(read(encoded(IMAGES)), IMAGES)
    np.testing.assert_array_equal(read(gzip.compress(encoded(IMAGES)), "t10k-images-idx3-ubyte.gz"), IMAGES)
    labels = np.array([3, 1], np.uint8)
    np.testing.assert_array_equal(read(encoded(labels), "train-labels-idx1-ubyte"), labels)


def test_colour_images_are_read():
    colour = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    np.testing.assert_array_equal(read(encoded(colour), "train-images-idx4-ubyte"), colour)


@pytest.mark.parametrize(
    ("file_name", "raw_name"),
    [
        ("train-images-idx3-ubyte", "train_images"),
        ("train-labels.idx1-ubyte.gz", "train_labels"),
        ("t10k-images-idx4-ubyte", "test_images"),
        ("test-labels-idx1-ubyte", "test_labels"),
        ("readme.md", None),
        ("train-images-idx3-ubyte.bak", None),
    ],
)
def test_published_names_say_what_a_file_contains(file_name, raw_name):
    assert idx.raw_name(file_name) == raw_name


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\0\0\x0d\x03" + encoded(IMAGES)[4:], "wrong magic number 00 00 0d 03"),
        (encoded(np.zeros(2, np.uint8)), "wrong magic number 00 00 08 01"),
        (b"", "wrong magic number"),
        (b"\0\0\x08", "wrong magic number 00 00 08"),
        (encoded(IMAGES)[:9], "ends within its header"),
        (encoded(IMAGES)[:-1], "has only 23 of the 24 bytes that its header claims"),
        (encoded(IMAGES) + b"\0", "trailing bytes"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "more than data.max_bytes"),
    ],
)
def test_a_bad_file_is_refused_by_name(content, reason):
    with pytest.raises(PipelineError, match=reason) as refusal:
        read(content)
    assert "train-images-idx3-ubyte" in str(refusal.value)


def test_a_header_that_claims_terabytes_allocates_nothing():
    tracemalloc.start()
    with pytest.raises(PipelineError, match="max_bytes"):
        read(b"\0\0\x08\x03" + struct.pack(">3I", 2**20, 2**10, 2**10))
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_a_gzip_bomb_is_refused_without_unpacking_it():
    bomb = gzip.compress(encoded(IMAGES) + bytes(50_000_000))
    tracemalloc.start()
    with pytest.raises(PipelineError, match="trailing bytes"):
        read(bomb, "train-images-idx3-ubyte.gz")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    "content", [b"not gzip", gzip.compress(encoded(IMAGES))[:-9]], ids=["other bytes", "cut short"]
)
def test_a_damaged_gzip_file_is_refused(content):
    with pytest.raises(PipelineError, match="not a complete gzip file"):
        read(content, "train-images-idx3-ubyte.gz")
