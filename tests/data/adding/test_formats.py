"""NPZ, Parquet, IDX and MATLAB files as they are usually published give exactly the original arrays."""

import gzip
import json
import shutil
import struct

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from published import TEST, TRAIN, assert_original, both_splits, digits
from scipy.io import savemat

from photos import png
from pipeline.errors import PipelineError


def test_npz_as_in_keras(clone, tmp_path):
    np.savez_compressed(tmp_path / "keras.npz", **both_splits())
    assert_original(clone.added(tmp_path / "keras.npz"))


def test_npz_as_in_medmnist_with_validation_images(clone, tmp_path):
    images, labels = digits()
    column = labels.reshape(-1, 1)
    np.savez(
        tmp_path / "medmnist.npz",
        train_images=images[:250],
        train_labels=column[:250],
        val_images=images[250:300],
        val_labels=column[250:300],
        test_images=images[TEST],
        test_labels=column[TEST],
    )
    assert_original(clone.added(tmp_path / "medmnist.npz"))
    assert clone.conf("mine")["validation_images"] == 50


def test_npz_of_floats_of_one_channel_and_one_hot_labels(clone, tmp_path):
    floats = {
        name: (array[..., None] / 255).astype(np.float32) if name[0] == "x" else np.eye(10)[array]
        for name, array in both_splits().items()
    }
    np.savez(tmp_path / "floats.npz", **floats)
    assert_original(clone.added(tmp_path / "floats.npz"))


def test_one_array_per_file_as_in_kmnist(clone, tmp_path):
    (tmp_path / "kmnist").mkdir()
    for name, array in both_splits().items():
        kind, split = name.split("_")
        np.savez(tmp_path / "kmnist" / f"kmnist-{split}-{'imgs' if kind == 'x' else 'labels'}.npz", array)
    assert_original(clone.added(tmp_path / "kmnist"))


def test_npy_files_are_found_by_the_names_in_conf(clone, tmp_path):
    (tmp_path / "odd").mkdir()
    for name, array in both_splits().items():
        np.save(tmp_path / "odd" / f"{name}.npy", np.asfortranarray(array))
    for before, after in (
        ("x_train", "first"),
        ("y_train", "second"),
        ("x_test", "third"),
        ("y_test", "last"),
    ):
        (tmp_path / "odd" / f"{before}.npy").rename(tmp_path / "odd" / f"{after}.npy")
    with pytest.raises(PipelineError, match="its arrays are called first, last, second, third: say which"):
        clone.add(tmp_path / "odd")
    names = "{train_images: first, train_labels: second, test_images: third, test_labels: last}"
    assert_original(clone.added(tmp_path / "odd", settings=(f"arrays={names}",)))


def test_a_folder_of_several_npz_of_all_arrays_is_refused_since_one_would_hide_the_others(clone, tmp_path):
    (tmp_path / "parts").mkdir()
    np.savez(tmp_path / "parts" / "one.npz", **both_splits())
    np.savez(tmp_path / "parts" / "two.npz", **both_splits())
    with pytest.raises(PipelineError, match="one_x_train and two_x_train could both be its images: join"):
        clone.add(tmp_path / "parts")


def test_a_folder_may_contain_one_npz_of_all_arrays(clone, tmp_path):
    (tmp_path / "medmnist").mkdir()
    np.savez(tmp_path / "medmnist" / "digits.npz", **both_splits())
    assert_original(clone.added(tmp_path / "medmnist"))


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("label_column", "write a setting of the source"),
        ("images=3", "write a setting of the source"),
        ("kind=idx", "write a setting of the source"),
        ("label_column=y", "a source of kind npz has no such setting"),
        ("unreadable=maybe", "should be 'refuse' or 'skip'"),
        ("arrays={", "is not valid YAML"),
    ],
)
def test_a_setting_that_the_source_does_not_have_is_refused(clone, tmp_path, typed, reason):
    np.savez(tmp_path / "digits.npz", **both_splits())
    with pytest.raises(PipelineError, match=reason):
        clone.add(tmp_path / "digits.npz", name="mine", settings=(typed,))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x_train": np.linspace(-1, 1, 300 * 64).reshape(300, 8, 8)}, "x_train has values from -1 to"),
        ({"x_train": np.full((300, 8, 8), np.nan)}, "not finite numbers"),
        ({"x_train": np.linspace(0, 1, 300 * 64).reshape(300, 8, 8)}, "save it before it is normalised"),
        ({"y_train": np.arange(299)}, "has more images than y_train has labels, 299"),
        ({"y_train": np.ones((300, 3), int)}, "an image must have one label, not several"),
        ({"x_train": np.zeros((300, 64), np.uint8)}, "is not a shape of images"),
        ({"x_train": np.array([None] * 300)}, "contains Python objects"),
        ({"x_train": np.zeros((300, 8, 8, 2), np.uint8)}, "have 2 channels, but must be grey or have three"),
        ({"x_train": np.zeros((300, 8, 8, 5), np.uint8)}, "have 5 channels, but must be grey or have three"),
        ({"x_train_2": np.zeros((9, 8, 8), np.uint8)}, "x_train and x_train_2 could both be its images"),
        ({"label_names": np.array(["a"])}, "has label_names, but no images for it among x_train, .*: say wh"),
    ],
)
def test_an_npz_without_images_is_refused(clone, tmp_path, change, reason):
    np.savez(tmp_path / "bad.npz", **(both_splits() | change))
    with pytest.raises(PipelineError, match=reason):
        clone.add(tmp_path / "bad.npz")


def hugging_face(part: slice, **changes) -> pyarrow.Table:
    images, labels = digits()
    rows = [{"bytes": png(image), "path": f"{at}.png"} for at, image in enumerate(images[part])]
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    table = pyarrow.table({"image": rows, "label": labels[part].astype(np.int64)} | changes)
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def test_parquet_as_on_hugging_face_in_several_files(clone, tmp_path):
    folder = tmp_path / "hf" / "data"
    folder.mkdir(parents=True)
    for name, part in (
        ("train-00000-of-00002", slice(0, 200)),
        ("train-00001-of-00002", slice(200, 300)),
        ("test-00000-of-00001", TEST),
    ):
        pyarrow.parquet.write_table(hugging_face(part), folder / f"{name}.parquet")
    assert_original(clone.added(tmp_path / "hf"))
    assert clone.conf("mine")["classes"][:3] == ["zero", "one", "two"]


def test_parquet_of_lists_of_pixels(clone, tmp_path):
    images, labels = digits()
    (tmp_path / "lists").mkdir()
    for name, part in (("train", TRAIN), ("test", TEST)):
        table = pyarrow.table({"label": labels[part], "image": images[part].tolist()})
        pyarrow.parquet.write_table(table, tmp_path / "lists" / f"{name}.parquet")
    assert_original(clone.added(tmp_path / "lists"))


def test_parquet_with_missing_bytes_is_skipped_or_refused_by_row(clone, tmp_path):
    images, _ = digits()
    rows = [{"bytes": png(image), "path": None} for image in images[TRAIN]]
    rows[7]["bytes"] = rows[130]["bytes"] = None
    pyarrow.parquet.write_table(hugging_face(TRAIN, image=rows), tmp_path / "gap.parquet")
    lines = clone.add(tmp_path / "gap.parquet", name="mine")
    assert {"  gap.parquet row 8 is empty", "  gap.parquet row 131 is empty"} <= set(lines)
    for content, reason in (
        ((tmp_path / "gap.parquet").read_bytes()[:-100] + b"PAR1", "is not a complete Parquet file"),
        (b"PAR1" + bytes(50), "is not a complete Parquet file"),
    ):
        (tmp_path / "bad.parquet").write_bytes(content)
        with pytest.raises(PipelineError, match=reason):
            clone.add(tmp_path / "bad.parquet")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([0, 1, -1, -1], "has the label -1, but its 10 classes .* -1 marks test images"),
        ([0, 1, 10, 2], "has the label 10, but its 10 classes are numbered from 0"),
        ([0, 1, None, None], "has 2 rows without a label: remove them"),
    ],
)
def test_parquet_with_labels_that_are_no_classes_says_which(clone, tmp_path, labels, reason):
    column = pyarrow.array(labels, pyarrow.int64())
    pyarrow.parquet.write_table(hugging_face(slice(4), label=column), tmp_path / "odd.parquet")
    with pytest.raises(PipelineError, match=reason):
        clone.add(tmp_path / "odd.parquet")


def idx_file(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_idx_files_may_also_be_in_folders_of_the_same_names(clone, tmp_path):
    images, labels = digits()
    for split, part in (("train", TRAIN), ("t10k", TEST)):
        for name, array in (("images-idx3", images[part]), ("labels-idx1", labels[part])):
            (tmp_path / "mnist" / f"{split}-{name}-ubyte").mkdir(parents=True)
            inner = tmp_path / "mnist" / f"{split}-{name}-ubyte" / f"{split}-{name}-ubyte"
            inner.write_bytes(idx_file(array))
            shutil.copy(inner, tmp_path / "mnist" / f"{split}-{name.replace('-', '.')}-ubyte")
    assert_original(clone.added(tmp_path / "mnist"))


@pytest.mark.parametrize("first", [0, 1])
def test_idx_as_in_emnist_transposed_and_with_labels_from_one(clone, tmp_path, first):
    images, labels = digits()
    (tmp_path / "emnist").mkdir()
    for split, part in (("train", TRAIN), ("test", TEST)):
        turned = np.ascontiguousarray(images[part].swapaxes(1, 2))
        for name, array in (("images-idx3", turned), ("labels-idx1", labels[part] + np.uint8(first))):
            path = tmp_path / "emnist" / f"emnist-letters-{split}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(idx_file(array)))
    assert_original(clone.added(tmp_path / "emnist"))
    conf = clone.conf("mine")
    assert conf["sources"][0]["transpose"]
    assert conf["sources"][0]["labels"] == [str(first + digit) for digit in range(10)]


def test_idx_that_got_more_images_than_labels_is_refused(clone, tmp_path):
    images, labels = digits()
    for split, part in (("train", TRAIN), ("test", TEST)):
        (tmp_path / f"{split}-images-idx3-ubyte").write_bytes(idx_file(images[part]))
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(idx_file(labels[part]))
    clone.add(tmp_path, name="mine")
    # They are read in two pieces, and there are no labels for the second one.
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_file(np.zeros((2**16 + 1, 8, 8), np.uint8)))
    with pytest.raises(PipelineError, match="train_images has 65537 images, but train_labels has 300 labels"):
        clone.fetch("mine")


def test_classes_may_be_renamed_where_the_source_has_numbers(clone, tmp_path):
    np.savez(tmp_path / "keras.npz", **both_splits())
    clone.add(tmp_path / "keras.npz", name="mine")
    path = clone.workspace.root / "conf" / "data" / "mine.yaml"
    path.write_text(path.read_text().replace('"3"', '"three"', 1))
    assert_original(clone.fetch("mine"))
    clone.add(tmp_path / "keras.npz", name="mine", update=True)
    assert clone.conf("mine")["classes"][2:5] == ["2", "three", "4"]
    assert_original(clone.fetch("mine"))


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_mat_as_in_svhn(clone, tmp_path, dtype):
    images, labels = digits()
    (tmp_path / "svhn").mkdir()
    for split, part in (("train", TRAIN), ("test", TEST)):
        colour = np.repeat(images[part][..., None], 3, axis=3)
        numbers = np.where(labels[part] == 0, 10, labels[part]).reshape(-1, 1).astype(dtype)
        savemat(tmp_path / "svhn" / f"{split}_32x32.mat", {"X": np.moveaxis(colour, 0, -1), "y": numbers})
    arrays = clone.added(tmp_path / "svhn")
    assert arrays["train_images"].shape == (300, 8, 8, 3)
    assert_original({name: array[..., 0] if array.ndim == 4 else array for name, array in arrays.items()})


def test_mat_as_in_emnist(clone, tmp_path):
    images, labels = digits()

    def part(of: slice) -> dict:
        columns = images[of].swapaxes(1, 2).reshape(-1, 64)
        return {"images": columns, "labels": labels[of].reshape(-1, 1).astype(float)}

    mapping = np.array([[digit, 48 + digit] for digit in range(10)], np.uint8)
    dataset = {"train": part(TRAIN), "test": part(TEST), "mapping": mapping}
    savemat(tmp_path / "emnist-digits.mat", {"dataset": dataset}, do_compression=True)
    assert_original(clone.added(tmp_path / "emnist-digits.mat"))


@pytest.mark.parametrize("content", [b"MATLAB 5.0 MAT-file" + bytes(200), b"MATLAB"])
def test_a_damaged_mat_file_is_refused(clone, tmp_path, content):
    (tmp_path / "bad.mat").write_bytes(content)
    with pytest.raises(PipelineError, match=r"bad\.mat"):
        clone.add(tmp_path / "bad.mat")
