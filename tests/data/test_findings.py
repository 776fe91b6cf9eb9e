"""What preprocess finds in a data set, listed by file."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pipeline.artifacts.processed import read_dataset
from pipeline.artifacts.workspace import SPLITS, Workspace
from pipeline.config.compose import compose
from pipeline.data.findings import unusual_brightness, unusual_sizes
from pipeline.data.inspection import Inspection
from pipeline.data.names import write_names
from pipeline.data.near_duplicates import Hasher
from pipeline.stages import preprocess

CONF = Path(__file__).parents[2] / "conf"
SIDE, TRAIN, TEST = 24, 90, 30


def photo(rng) -> np.ndarray:
    """Return a synthetic picture with large and small shapes, and a little noise."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6), np.uint8)).resize(
        (96, 96), Image.Resampling.BICUBIC
    )
    levels = np.asarray(coarse).astype(float) * 0.6 + 40 + rng.normal(0, 4, (96, 96))
    return np.clip(levels, 0, 255).astype(np.uint8)


def small(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [photo(rng) for _ in range(TRAIN + TEST)]


@pytest.fixture
def made(pictures, tmp_path):
    """Return a function that writes data/raw and returns the rows of findings.csv, and dataset.json."""

    def make(change, *overrides):
        workspace = Workspace(tmp_path)
        images = np.stack([small(picture) for picture in pictures])
        labels = (np.arange(len(images)) % 2).astype(np.int32)
        train, test = (images[:TRAIN], labels[:TRAIN]), (images[TRAIN:], labels[TRAIN:])
        change(train, test)
        workspace.raw.mkdir(parents=True, exist_ok=True)
        for name, (of, classes) in {"train": train, "test": test}.items():
            np.save(workspace.raw / f"{name}_images.npy", of)
            np.save(workspace.raw / f"{name}_labels.npy", classes)
        counts = {"train": TRAIN, "test": TEST}
        names = {f"{name}_names": [f"{name}/{n}.png" for n in range(of)] for name, of in counts.items()}
        sizes = {f"{name}_sizes": np.full((of, 2), 96, np.int32) for name, of in counts.items()}
        sizes["test_sizes"][4] = 96, 400
        write_names(workspace.raw, names, sizes)
        fixed = [
            "data.name=made",
            "data.classes=[cat,dog]",
            "data.sha256=null",
            f"data.reader.image_size=[{SIDE},{SIDE}]",
        ]
        preprocess.run(compose(CONF, [*fixed, *overrides]), workspace)
        with workspace.findings.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file)), read_dataset(workspace), workspace

    return make


def of_kind(rows, kind):
    return [row for row in rows if row["finding"] == kind]


def test_a_near_duplicate_in_the_test_set_is_named_with_the_training_image(made, pictures):
    rng = np.random.default_rng(1)

    def change(train, test):
        blurred = Image.fromarray(pictures[7]).filter(ImageFilter.GaussianBlur(1))
        test[0][2] = np.asarray(blurred.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        test[0][5] = np.clip(train[0][11] * 0.9 + 10 + rng.normal(0, 1, (SIDE, SIDE)), 0, 255)
        test[0][9] = train[0][13]  # equal: listed as such

    rows, dataset, workspace = made(change)
    near = of_kind(rows, "near_duplicate")
    pairs = {(test["file"], train["file"]) for test, train in zip(near[::2], near[1::2], strict=True)}
    assert pairs == {("test/2.png", "train/7.png"), ("test/5.png", "train/11.png")}
    assert [row["group"] for row in near] == ["1", "1", "2", "2"]
    assert all(0.99 <= float(row["value"]) < 1 for row in near)
    assert dataset.findings["near_duplicate"] == 2
    for name in ("balance", "near_duplicates", "outliers"):
        with Image.open(workspace.data_figures / f"{name}.png") as figure:
            assert figure.width == 880


@pytest.mark.parametrize("duplicates", ["keep", "drop"])
def test_equal_images_are_listed_by_file_and_conflicts_are_marked(made, capsys, duplicates):
    def change(train, test):
        train[0][20] = train[0][4]
        test[0][1] = train[0][5]
        train[1][[4, 20]], test[1][1] = 0, 1 - train[1][5]

    rows, dataset, _ = made(change, f"preprocess.duplicates={duplicates}", "preprocess.validation_fraction=0")
    assert [(row["file"], row["class"], row["group"]) for row in of_kind(rows, "duplicate")] == [
        ("train/4.png", "cat", "1"),
        ("train/20.png", "cat", "1"),
    ]
    assert [(row["file"], row["class"], row["group"]) for row in of_kind(rows, "conflict")] == [
        ("train/5.png", "dog", "2"),
        ("test/1.png", "cat", "2"),
    ]
    assert (dataset.findings["duplicate"], dataset.findings["conflict"]) == (2, 2)
    assert "2 equal to one of another class" in capsys.readouterr().out


def test_unusual_images_are_listed_with_what_is_unusual(made):
    def change(train, test):
        train[0][30], train[0][31] = 128, train[0][31] // 9
        test[0][3] = 250 + test[0][3] // 64

    rows, dataset, _ = made(change)
    assert [(row["file"], row["value"]) for row in of_kind(rows, "one_colour")] == [("train/30.png", "128.0")]
    assert {row["file"] for row in of_kind(rows, "brightness")} == {"train/31.png", "test/3.png"}
    assert [(row["file"], row["value"]) for row in of_kind(rows, "size")] == [("test/4.png", "96×400")]
    assert sum(dataset.findings.values()) == 4


def test_sizes_within_a_wide_spread_are_not_unusual():
    rng = np.random.default_rng(0)
    sizes = {split: rng.integers(40, 130, (200, 2)).astype(np.int32) for split in SPLITS}
    assert list(unusual_sizes(sizes)) == []
    sizes["train"][5], sizes["test"][6] = (4000, 3000), (30, 900)
    found = {(each.split, each.index, each.value) for each in unusual_sizes(sizes)}
    assert found == {("train", 5, "4000×3000"), ("test", 6, "30×900")}


@pytest.mark.parametrize("usual", [30, 77, 100, 640])
def test_a_size_is_unusual_from_four_times_the_area_or_twice_the_proportion_on(usual):
    double, more, less = 2 * usual, usual + 1, 2 * usual - 1
    listed = [(double, double), (double, usual), (usual, double), (usual // 2, usual // 2)]
    others = [(less, double), (less, usual), (usual, less), (double, more), (usual // 2 + 1, usual // 2 + 1)]
    sizes = {"train": np.array(20 * [(usual, usual)]), "test": np.array([*others, *listed])}
    found = [each.index for each in unusual_sizes(sizes) if each.split == "test"]
    assert sorted(found) == list(range(len(others), len(others) + len(listed)))


def inspected(levels):
    hasher = Hasher((1, 1), np.zeros(63, np.float32))
    contrast = np.full(len(levels), 9, np.uint8)
    return Inspection(hasher, brightness=np.array(levels, np.float32), contrast=contrast)


def test_of_each_split_the_most_unusual_images_are_listed_first_and_equal_ones_in_order():
    splits = {"train": inspected([*9 * [100], 120]), "test": inspected([100, 80, 130, 120, 70])}
    found = [(each.split, each.index) for each in unusual_brightness(splits)]
    assert found == [("train", 9), ("test", 2), ("test", 4), ("test", 1), ("test", 3)]
    sizes = {"train": np.array(9 * [(9, 9)]), "test": np.array([(9, 45), (9, 90), (9, 9), (90, 9)])}
    assert [each.index for each in unusual_sizes(sizes)] == [1, 3, 0]


@pytest.mark.parametrize(
    ("train", "inside", "beyond"),
    [
        ([100.0] * 9, (95.0, 105.0), (94.75, 105.25)),  # a spread of at least one level
        ([90.0, 100.0, 110.0] * 3, (26.0, 174.0), (25.75, 174.25)),  # 1.4826 times 10 levels
    ],
)
def test_a_brightness_is_unusual_beyond_five_robust_standard_deviations(train, inside, beyond):
    splits = {"train": inspected(train), "test": inspected([*inside, *beyond])}
    found = {(each.split, each.kind, float(each.value)) for each in unusual_brightness(splits)}
    assert found == {("test", "brightness", round(level, 1)) for level in beyond}


def test_the_counts_are_in_dataset_json(made):
    _, dataset, workspace = made(lambda train, test: None)
    assert json.loads(workspace.dataset.read_text())["findings"] == dict(dataset.findings)
    assert set(dataset.findings) == {
        "duplicate",
        "conflict",
        "near_duplicate",
        "one_colour",
        "brightness",
        "size",
    }
