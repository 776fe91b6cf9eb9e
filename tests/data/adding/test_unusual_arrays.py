"""Arrays and tables with more or less than images and labels: the images are found, or the file refused."""

import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from published import TRAIN, assert_original, both_splits, digits
from scipy.io import savemat

from photos import png
from pipeline.errors import PipelineError


def test_a_split_without_images_is_left_out(clone, tmp_path):
    splits = both_splits()
    empty = {"x_val": splits["x_train"][:0], "y_val": splits["y_train"][:0]}
    np.savez(tmp_path / "empty.npz", **splits, **empty)
    assert_original(clone.added(tmp_path / "empty.npz"))


def test_several_texts_for_an_image_are_refused(clone, tmp_path):
    texts = np.array([["cat", "dog"]] * 300)
    np.savez(tmp_path / "texts.npz", **(both_splits() | {"y_train": texts}))
    with pytest.raises(PipelineError, match="an image must have one label, not several"):
        clone.add(tmp_path / "texts.npz")


@pytest.mark.parametrize(
    ("mark", "at", "byte", "reason"),
    [
        (b"PK\3\4", 0, 0, "x_train.npy is damaged: Bad magic number"),
        (b"PK\1\2", 8, 1, "x_train.npy is damaged: .* is encrypted"),
        (b"PK\1\2", 10, 9, "x_train.npy is damaged: .* not supported"),
    ],
)
def test_an_npz_whose_first_member_can_not_be_opened_is_refused(clone, tmp_path, mark, at, byte, reason):
    np.savez(tmp_path / "bad.npz", **both_splits())
    content = bytearray((tmp_path / "bad.npz").read_bytes())
    content[content.find(mark) + at] = byte
    (tmp_path / "bad.npz").write_bytes(content)
    assert zipfile.is_zipfile(tmp_path / "bad.npz")
    with pytest.raises(PipelineError, match=reason):
        clone.add(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("change", "settings", "reason"),
    [
        ({"y_train": np.zeros(301, int)}, (), "x_train has 300 images, but y_train has 301 labels"),
        ({"y_train": np.eye(300)[:, :3]}, (), "an image must have one label, not several"),
        ({"y_train": np.zeros(300, bool)}, (), "labels must be whole numbers or texts"),
        ({}, ("arrays={train_pictures: x_train}",), "arrays.train_pictures is not a valid key"),
        ({}, ("arrays={other_images: x_train}",), "arrays.other_images is not a valid key"),
        ({}, ("arrays={images: x, labels: y}",), "it has no array x, but x_train, y_train"),
    ],
)
def test_an_npz_without_a_label_for_each_image_is_refused(clone, tmp_path, change, settings, reason):
    np.savez(tmp_path / "bad.npz", **(both_splits() | change))
    with pytest.raises(PipelineError, match=reason):
        clone.add(tmp_path / "bad.npz", settings=settings)


@pytest.mark.parametrize("side", [0, 20_000])
def test_arrays_of_a_size_that_no_image_may_have_are_refused(clone, tmp_path, side):
    np.savez(tmp_path / "signals.npz", x=np.zeros((4, 1, side), np.uint8), y=np.arange(4) % 2)
    with pytest.raises(
        PipelineError, match=r"signals\.npz: its reader\.image_size\.1 is not valid: .* equal"
    ):
        clone.add(tmp_path / "signals.npz")


def test_in_parquet_pictures_are_preferred_to_other_lists(clone, tmp_path):
    images, labels = digits()
    corners = [[number % 9, 1, 2, 3] for number in range(300)]
    pictures = [{"bytes": png(image), "path": None} for image in images[TRAIN]]
    table = pyarrow.table({"box": corners, "image": pictures, "label": labels[TRAIN]})
    pyarrow.parquet.write_table(table, tmp_path / "boxes.parquet")
    clone.add(tmp_path / "boxes.parquet", name="mine")
    assert clone.conf("mine")["reader"]["image_size"] == [8, 8]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array([2**63, 7], np.uint64), ["7", str(2**63)]),
        (np.array([1.0, 0.0]), ["0", "1"]),
        (np.array([True, False]), ["0", "1"]),
    ],
)
def test_numbers_of_any_type_are_labels_in_parquet(clone, tmp_path, labels, classes):
    images, _ = digits()
    table = pyarrow.table({"image": images[TRAIN].tolist(), "label": np.tile(labels, 150)})
    pyarrow.parquet.write_table(table, tmp_path / "numbers.parquet")
    clone.add(tmp_path / "numbers.parquet", name="mine")
    assert clone.conf("mine")["classes"] == classes


@pytest.mark.parametrize(
    ("label", "reason"), [(0.5, "labels are double"), (float("nan"), "are double"), (b"a", "are binary")]
)
def test_other_labels_in_parquet_are_refused(clone, tmp_path, label, reason):
    images, _ = digits()
    table = pyarrow.table({"image": images[:2].tolist(), "label": [label, label]})
    pyarrow.parquet.write_table(table, tmp_path / "odd.parquet")
    with pytest.raises(PipelineError, match=reason):
        clone.add(tmp_path / "odd.parquet")


def test_texts_and_square_lists_are_read_from_parquet(clone, tmp_path):
    images, labels = digits()
    flat = images[:360].reshape(360, 64).tolist()
    table = pyarrow.table({"target": [f"d{label}" for label in labels[:360]], "image": flat})
    pyarrow.parquet.write_table(table, tmp_path / "flat.parquet")
    arrays = clone.added(tmp_path / "flat.parquet")
    assert clone.conf("mine")["classes"] == [f"d{digit}" for digit in range(10)]
    assert arrays["train_images"].shape[1:] == (8, 8)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"image": [[0] * 4] * 2}, "no label column: it has image; choose one with --set label_column"),
        ({"image": ["a", "b"], "label": [0, 1]}, "has no image column"),
        ({"image": [[0] * 4, [0] * 9], "label": [0, 1]}, "lists of pixels of different lengths"),
        ({"image": [[0] * 4, None], "label": [0, 1]}, "or missing ones"),
        ({"image": [[0] * 4, [0, 0, 0, None]], "label": [0, 1]}, "has a pixel without a value"),
        ({"image": [[], []], "label": [0, 1]}, "lists of 0 numbers are too short for pixels"),
        # The corners of a box, next to the name of a file.
        ({"image": ["a", "b"], "bbox": [[0] * 4] * 2, "label": [0, 1]}, "lists of 4 numbers are too short"),
    ],
)
def test_parquet_without_pixels_or_labels_is_refused(clone, tmp_path, columns, reason):
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "odd.parquet")
    with pytest.raises(PipelineError, match=reason):
        clone.add(tmp_path / "odd.parquet")


@pytest.mark.parametrize("twice", ["image", "label"])
def test_parquet_with_two_columns_of_one_name_is_refused(clone, tmp_path, twice):
    names = ["image", "label", twice]
    columns = [[[0] * 64] * 4 if name == "image" else [0, 1, 0, 1] for name in names]
    table = pyarrow.Table.from_arrays([pyarrow.array(column) for column in columns], names=names)
    pyarrow.parquet.write_table(table, tmp_path / "odd.parquet")
    with pytest.raises(PipelineError, match=f"several columns that are called {twice}: rename all but one"):
        clone.add(tmp_path / "odd.parquet")


def test_files_of_different_data_sets_are_refused(clone, tmp_path):
    for name, mapping in (("letters", [[0, 65], [1, 66]]), ("digits", MAPPING)):
        images = np.random.default_rng(0).integers(0, 256, (4, 64), np.uint8)
        part = {"images": images, "labels": np.arange(4) % 2}
        dataset = {"train": part, "test": part, "mapping": np.array(mapping, np.uint8)}
        savemat(tmp_path / f"emnist-{name}.mat", {"dataset": dataset})
    with pytest.raises(PipelineError, match="different classes: '0' is not in all of them; give one file"):
        clone.add(tmp_path)


PART = {"images": np.zeros((4, 64), np.uint8), "labels": np.zeros((4, 1))}
MAPPING = np.array([[0, 48], [1, 49]], np.uint8)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"Z": np.zeros(3)}, "bad.mat has Z; it must have X and y, or dataset"),
        ({"X": np.zeros((8, 8, 3, 4)), "y": np.zeros(3)}, r"X has shape \(8, 8, 3, 4\), but y has"),
        # The digit 10 means 0 there, but among more classes it does not.
        (
            {"X": np.zeros((8, 8, 3, 43)), "y": np.arange(43)},
            "y has labels from 0 to 42, but those of SVHN are from 1 to 10",
        ),
        ({"X": np.zeros((8, 8, 3, 11)), "y": np.arange(11)}, "y has labels from 0 to 10"),
        ({"dataset": np.zeros(3)}, "does not have the structure of EMNIST"),
        (
            {"dataset": {"train": PART, "test": PART | {"images": np.zeros((4, 63))}, "mapping": MAPPING}},
            r"its test images have shape \(4, 63\)",
        ),
        (
            {"dataset": {"train": PART | {"labels": np.full((4, 1), 7)}, "test": PART, "mapping": MAPPING}},
            "has the label 7, which is not in its mapping",
        ),
    ],
)
def test_a_mat_file_with_something_else_is_refused(clone, tmp_path, values, reason):
    savemat(tmp_path / "bad.mat", values)
    with pytest.raises(PipelineError, match=reason):
        clone.add(tmp_path / "bad.mat")


def test_a_table_in_parts_that_spark_wrote_as_a_folder_is_read(clone, tmp_path):
    images, labels = digits()
    part = tmp_path / "spark" / "train.parquet" / "part-00000.parquet"
    part.parent.mkdir(parents=True)
    table = pyarrow.table({"image": images[TRAIN].tolist(), "label": labels[TRAIN]})
    pyarrow.parquet.write_table(table, part)
    clone.add(tmp_path / "spark", name="mine")
    assert clone.conf("mine")["sources"][0]["images"] == 300
