import io
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from pipeline.artifacts.workspace import RAW_ARRAYS
from pipeline.data.arrays import canonical
from pipeline.data.formats.npy import open_npy, read_npz
from pipeline.errors import PipelineError

CLASSES = ("cat", "dog")
SHAPE = (3, 2)
MAX_BYTES = 10_000


def raw() -> dict[str, np.ndarray]:
    return {
        "train_images": np.zeros((4, 3, 2), np.uint8),
        "train_labels": np.array([0, 1, 1, 0], np.uint8),
        "test_images": np.zeros((2, 3, 2), np.uint8),
        "test_labels": np.array([1, 0], np.uint8),
    }


def npz(**arrays: np.ndarray) -> io.BytesIO:
    file = io.BytesIO()
    np.savez(file, **arrays)
    file.seek(0)
    return file


def npy_claiming(shape: tuple[int, ...], dtype: str = "|u1", content: bytes = b"") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def zipped(member: bytes) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", member)
    file.seek(0)
    return file


def test_labels_become_int32_and_images_contiguous():
    arrays = raw() | {"train_images": np.asfortranarray(raw()["train_images"])}
    checked = canonical(arrays, CLASSES, SHAPE)
    assert list(checked) == list(RAW_ARRAYS)
    assert {array.dtype.str for name, array in checked.items() if "labels" in name} == {"<i4"}
    assert all(array.flags.c_contiguous for array in checked.values())


def test_colour_images_are_accepted():
    colour = {
        "train_images": np.zeros((4, 3, 2, 3), np.uint8),
        "test_images": np.zeros((2, 3, 2, 3), np.uint8),
    }
    assert canonical(raw() | colour, CLASSES, (*SHAPE, 3))["train_images"].shape == (4, 3, 2, 3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"train_images": np.zeros((5, 3, 2), np.uint8)},
            "train_images has 5 images, .*train_labels has 4 labels",
        ),
        ({"test_labels": np.array([1, 2], np.uint8)}, "test_labels has 2 at index 1, .* from 0 to 1"),
        ({"test_labels": np.array([-1, 0], np.int32)}, "test_labels has -1 at index 0"),
        (
            {"test_images": np.zeros((0, 3, 2), np.uint8), "test_labels": np.zeros(0, np.uint8)},
            "test_images is empty",
        ),
        (
            {"test_images": np.zeros((2, 2, 3), np.uint8)},
            r"test_images is .* images of shape \(3, 2\)",
        ),
        ({"train_images": np.zeros((4, 6), np.uint8)}, "train_images is uint8"),
        ({"train_images": np.zeros((4, 0, 2), np.uint8)}, "train_images is uint8"),
        ({"train_images": np.zeros((4, 3, 2), np.float32)}, "train_images is float32"),
        ({"train_labels": np.zeros(4, np.float32)}, "train_labels is float32"),
        ({"train_labels": np.zeros(4, np.int64)}, "train_labels is int64"),
        ({"train_labels": np.zeros((4, 1), np.uint8)}, "train_labels is uint8"),
    ],
)
def test_arrays_that_are_not_a_dataset_are_refused_by_name(change, reason):
    with pytest.raises(PipelineError, match=reason):
        canonical(raw() | change, CLASSES, SHAPE)


def test_a_missing_array_is_refused_by_name():
    arrays = raw()
    del arrays["test_labels"]
    with pytest.raises(PipelineError, match="no test_labels"):
        canonical(arrays, CLASSES, SHAPE)


def test_an_npz_file_is_read():
    images = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
    found = read_npz(npz(x=images, y=np.asfortranarray(images)), "a.npz", {"a": "x", "b": "y"}, MAX_BYTES)
    np.testing.assert_array_equal(found["a"], images)
    np.testing.assert_array_equal(found["b"], images)


class Malicious:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (npy_claiming((1,), "|O", pickle.dumps(Malicious())), "Python objects"),
        (npy_claiming((2**42,)), "claims 4398046511104"),
        (npy_claiming((-1, -3), content=b"abc"), "claims 3"),
        (npy_claiming((3,), content=b"abcd"), "has 4 bytes of values, but its header claims 3"),
        (b"\x93NUMPY\x03\x00" + npy_claiming((0,))[8:], "not a .npy file"),
        (b"\x93NUMPY\x01\x00\x05\x00{1:2}", "not a .npy file"),
        (b"plain text", "not a .npy file"),
    ],
)
def test_a_bad_array_is_refused_before_allocating(member, reason, tmp_path):
    tracemalloc.start()
    with pytest.raises(PipelineError, match=reason):
        read_npz(zipped(member), "a.npz", {"a": "x"}, MAX_BYTES)
    (tmp_path / "x.npy").write_bytes(member)
    with pytest.raises(PipelineError, match=reason):
        open_npy(tmp_path / "x.npy")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_zip_bomb_is_refused_without_unpacking_it():
    bomb = zipped(npy_claiming((50_000_000,), content=bytes(50_000_000)))
    tracemalloc.start()
    with pytest.raises(PipelineError, match=r"more than data\.max_bytes"):
        read_npz(bomb, "a.npz", {"a": "x"}, MAX_BYTES)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_damaged_npz_file_is_refused():
    whole = npz(x=np.arange(100, dtype=np.uint8)).getvalue()
    at = whole.index(bytes(range(50, 60)))
    for damaged in (whole[:-30], b"", whole[:at] + b"\xff" + whole[at + 1 :]):
        with pytest.raises(PipelineError, match="not a complete"):
            read_npz(io.BytesIO(damaged), "a.npz", {"a": "x"}, MAX_BYTES)


def test_an_absent_array_is_named():
    with pytest.raises(PipelineError, match=r"no y\.npy in a\.npz"):
        read_npz(npz(x=np.zeros(1)), "a.npz", {"a": "y"}, MAX_BYTES)


def test_a_memory_mapped_array_equals_the_saved_one(tmp_path):
    for array in (np.arange(6, dtype=np.int32).reshape(2, 3), np.empty((0, 5), np.uint8)):
        np.save(tmp_path / "a.npy", array)
        mapped = open_npy(tmp_path / "a.npy")
        np.testing.assert_array_equal(mapped, array)
        assert mapped.dtype == array.dtype


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PipelineError, match=r"nothing\.npy is missing"):
        open_npy(tmp_path / "nothing.npy")
