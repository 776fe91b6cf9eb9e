"""pipeline add-data on folders: what is found, and the arrays that result."""

import json
import os
import shutil

import numpy as np
import pytest
from pictures import save
from PIL import Image

from pipeline.data.names import read_pictures
from pipeline.errors import PipelineError


def pixels(path):
    return np.asarray(Image.open(path))


def test_a_folder_of_classes_becomes_the_raw_arrays(clone, pets):
    lines = clone.add(pets)
    assert lines[-2:] == [
        "Wrote conf/data/pets.yaml. Next:",
        "  python -m pipeline data=pets experiment=folder",
    ]
    arrays = clone.fetch("pets")
    names = read_pictures(clone.workspace.raw).names
    assert len(names["train_names"]) == 24
    assert len(names["test_names"]) == 6
    for split in ("train", "test"):
        for name, image, label in zip(
            names[f"{split}_names"], arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True
        ):
            np.testing.assert_array_equal(image, pixels(pets / name))
            assert name.startswith(("cat", "dog", "owl")[label])
    conf = clone.conf("pets")
    assert conf["reader"]["image_size"] == [9, 9]
    assert conf["sources"][0]["images"] == 30


def test_only_the_file_in_conf_is_written(clone, pets):
    def files(root):
        return {path for path in root.rglob("*") if path.is_file() and ".pipeline" not in path.parts}

    before, there = files(clone.workspace.root), files(pets)
    clone.add(pets)
    assert files(clone.workspace.root) - before == {clone.workspace.root / "conf" / "data" / "pets.yaml"}
    assert files(pets) == there


def test_the_arrays_depend_neither_on_the_folder_nor_on_the_order_of_its_files(
    clone, pets, tmp_path, monkeypatch
):
    first = clone.added(pets)
    moved = tmp_path / "elsewhere" / "moved"
    for path in sorted(pets.rglob("*.png"), reverse=True):
        target = moved / path.parent.name / f"{9 - int(path.stem)}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    scandir = os.scandir

    class Backwards:
        def __init__(self, path):
            self._entries = sorted(scandir(path), key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self._entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    pins = clone.conf("mine")["sha256"]
    clone.add(moved, name="moved")
    assert clone.conf("moved")["sha256"] == pins
    for name, array in clone.fetch("moved").items():
        np.testing.assert_array_equal(array, first[name])


def test_decoding_in_several_processes_gives_the_same_arrays(clone, tmp_path):
    for number in range(400):
        save(tmp_path / "many" / "ab"[number % 2] / f"{number}.png", number)
    arrays = clone.added(tmp_path / "many")
    found = {image.tobytes() for split in ("train", "test") for image in arrays[f"{split}_images"]}
    assert found == {pixels(path).tobytes() for path in (tmp_path / "many").rglob("*.png")}


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "valid", "Testing")])
def test_folders_called_train_val_and_test_are_the_splits(clone, tmp_path, names):
    for split, count in zip(names, (6, 2, 3), strict=True):
        for label in ("cat", "dog"):
            for number in range(count):
                path = tmp_path / "split" / split / label / f"{number}.png"
                save(path, hash((split, label, number)) % 2**32)
    lines = clone.add(tmp_path / "split", name="mine")
    assert lines[-1] == "  python -m pipeline data=mine experiment=folder preprocess.validation_split=given"
    arrays = clone.fetch("mine")
    assert {name: len(array) for name, array in arrays.items() if "labels" in name} == {
        "train_labels": 16,
        "test_labels": 6,
    }
    assert clone.conf("mine")["validation_images"] == 4
    names_of = read_pictures(clone.workspace.raw).names
    assert all(name.startswith(names[1]) for name in names_of["train_names"][-4:])
    assert all(name.startswith(names[2]) for name in names_of["test_names"])


@pytest.mark.parametrize("wrap", ["", "data", "data/images"])
def test_folders_around_the_class_folders_are_ignored(clone, pets, tmp_path, wrap):
    (tmp_path / "outer" / wrap).mkdir(parents=True)
    (tmp_path / "outer" / "README.txt").write_text("about")
    for folder in pets.iterdir():
        shutil.copytree(folder, tmp_path / "outer" / wrap / folder.name)
    clone.add(tmp_path / "outer")
    assert clone.conf("outer")["classes"] == ["cat", "dog", "owl"]


@pytest.mark.parametrize("table", ["id,description\n1,old", "class,count\ncat,10", "1,2"])
def test_an_unrelated_table_does_not_hide_the_class_folders(clone, pets, table):
    (pets / "notes.csv").write_text(table)
    clone.add(pets)
    assert clone.conf("pets")["sources"][0]["kind"] == "folder"


def test_the_command_that_pins_a_change_can_be_pasted(clone, pets, tmp_path):
    clone.add(pets.rename(tmp_path / "my pets"), name="mine")
    save(tmp_path / "my pets" / "cat" / "more.png", 99)
    for refused in (lambda: clone.add(tmp_path / "my pets", name="mine"), lambda: clone.fetch("mine")):
        with pytest.raises(PipelineError, match=r"add-data '/.*/my pets' --name mine --update"):
            refused()


def test_the_name_of_a_data_set_keeps_letters_with_accents(clone, pets, tmp_path):
    assert "data=obst_gemuse " in clone.add(pets.rename(tmp_path / "Obst & Gemüse"))[-1]


def test_a_long_name_does_not_widen_the_table(clone, pets):
    (pets / "cat").rename(pets / ("cat " * 30))
    lines = clone.add(pets)
    assert max(len(line) for line in lines[1:6]) <= 80


def test_a_file_name_with_bytes_that_cannot_be_decoded_is_fetched(clone, pets):
    (pets / "cat" / "0.png").rename(pets / "cat" / os.fsdecode(b"\xff.png"))
    assert len(clone.added(pets)["train_labels"]) == 24


def test_a_path_may_begin_with_the_home_folder(clone, pets, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    clone.add("~/pets")
    assert clone.conf("pets")["sources"][0]["path"] == str(pets)


def test_classes_called_train_and_car_are_classes(clone, tmp_path):
    for label in ("train", "car"):
        for number in range(5):
            save(tmp_path / "vehicles" / label / f"{number}.png", number + 10 * len(label))
    clone.added(tmp_path / "vehicles")
    assert clone.conf("mine")["classes"] == ["car", "train"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_names_the_classes_of_a_flat_folder(clone, tmp_path, kind):
    rows = [{"file_name": f"{number}.png", "label": "ab"[number % 2]} for number in range(12)]
    for number in range(12):
        save(tmp_path / "flat" / f"{number}.png", number)
    table = tmp_path / "flat" / f"metadata.{kind}"
    if kind == "csv":
        lines = ["file_name,label", *(f"{row['file_name']},{row['label']}" for row in rows)]
        table.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    elif kind == "jsonl":
        # A separator that Python takes for the end of a line, and JSON does not.
        noted = [row | {"note": "one\u2028two"} for row in rows]
        table.write_text("\r\n".join(json.dumps(row, ensure_ascii=False) for row in noted), encoding="utf-8")
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    assert "labelled by metadata" in clone.add(tmp_path / "flat", name="mine")[0]
    arrays = clone.fetch("mine")
    for name, label in zip(
        read_pictures(clone.workspace.raw).names["train_names"], arrays["train_labels"], strict=True
    ):
        assert label == int(name.removesuffix(".png")) % 2


def test_options_set_the_size_the_colours_and_the_test_fraction(clone, pets):
    clone.add(pets, image_size="12x10", colour="grey", resize="crop", test_fraction=0.5)
    arrays = clone.fetch("pets")
    assert arrays["train_images"].shape == (15, 12, 10)
    for wrong, reason in (
        ({"image_size": "0x3"}, "0x3 is not a size"),
        ({"colour": "pink"}, "should be grey or rgb"),
        ({"resize": "x"}, "should be pad or crop or stretch"),
    ):
        with pytest.raises(PipelineError, match=reason):
            clone.add(pets, name="other", **wrong)


def test_the_only_image_of_a_class_is_for_training(clone, pets):
    save(pets / "emu" / "1.png", 77)
    assert 3 in clone.added(pets)["train_labels"]


def test_many_classes_are_counted_with_the_span_of_their_sizes(clone, tmp_path):
    for number in range(32):
        for copy in range(5 + (number == 31)):
            save(tmp_path / "many" / f"{number:02}" / f"{copy}.png", 100 * number + copy)
    assert "  and 2 more classes of 5 to 6 images" in clone.add(tmp_path / "many")
    shutil.rmtree(tmp_path / "many" / "31")
    assert "  and 1 more class of 5 images" in clone.add(tmp_path / "many", force=True)
