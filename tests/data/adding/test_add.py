"""pipeline add-data on folders: what is found, pinned, refused and updated."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import unicodedata
import zipfile

import numpy as np
import pytest
from pictures import save
from PIL import Image

from pipeline.data.names import read_pictures
from pipeline.errors import PipelineError


def pixels(path):
    return np.asarray(Image.open(path))


def sides(clone) -> dict[str, str]:
    """Return {name of a picture: train or test} for the fetched data."""
    names = read_pictures(clone.workspace.raw).names
    return {name: split.partition("_")[0] for split, of in names.items() for name in of}


# --- one command ------------------------------------------------------------------------------------


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


def test_the_same_pictures_give_the_same_arrays_wherever_they_are_and_however_they_are_listed(
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


def test_decoding_in_processes_gives_the_same(clone, tmp_path):
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
def test_folders_around_all_others_mean_nothing(clone, pets, tmp_path, wrap):
    (tmp_path / "outer" / wrap).mkdir(parents=True)
    (tmp_path / "outer" / "README.txt").write_text("about")
    for folder in pets.iterdir():
        shutil.copytree(folder, tmp_path / "outer" / wrap / folder.name)
    clone.add(tmp_path / "outer")
    assert clone.conf("outer")["classes"] == ["cat", "dog", "owl"]


@pytest.mark.parametrize("table", ["id,description\n1,old", "class,count\ncat,10", "1,2"])
def test_a_table_of_something_else_does_not_hide_the_folders_of_classes(clone, pets, table):
    (pets / "notes.csv").write_text(table)
    clone.add(pets)
    assert clone.conf("pets")["sources"][0]["kind"] == "folder"


def test_the_command_that_pins_a_change_can_be_pasted(clone, pets, tmp_path):
    clone.add(pets.rename(tmp_path / "my pets"), name="mine")
    save(tmp_path / "my pets" / "cat" / "more.png", 99)
    for refused in (lambda: clone.add(tmp_path / "my pets", name="mine"), lambda: clone.fetch("mine")):
        with pytest.raises(PipelineError, match=r"add-data '/.*/my pets' --name mine --update"):
            refused()


def test_a_long_name_does_not_widen_the_table(clone, pets):
    (pets / "cat").rename(pets / ("cat " * 30))
    lines = clone.add(pets)
    assert max(len(line) for line in lines[1:6]) <= 80


def test_a_file_name_with_bytes_that_can_not_be_decoded_is_fetched(clone, pets):
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
        table.write_text("\n".join(map(json.dumps, rows)))
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


def test_options_set_what_the_pictures_become(clone, pets):
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


# --- which images are for testing -------------------------------------------------------------------


def test_a_fifth_of_each_class_is_for_testing_within_one_image(clone, tmp_path):
    for label, count in (("a", 3), ("b", 11), ("c", 47), ("d", 1)):
        for number in range(count):
            save(tmp_path / "uneven" / label / f"{number}.png", number + 1000 * ord(label))
    arrays = clone.added(tmp_path / "uneven")
    found = np.bincount(arrays["test_labels"], minlength=4)
    assert (np.abs(found - np.array([3, 11, 47, 1]) / 5) <= 1).all()
    assert found[3] == 0


def test_copies_of_an_image_are_on_one_side(clone, pets):
    for label in ("cat", "dog"):
        for number in range(10):
            for copy in range(3):
                shutil.copy(pets / label / f"{number}.png", pets / label / f"{number}-{copy}.png")
    lines = clone.add(pets, name="mine")
    assert "Duplicates: 60 images equal to another one, 0 in more than one split." in lines
    arrays = clone.fetch("mine")
    train, test = ({i.tobytes() for i in arrays[f"{split}_images"]} for split in ("train", "test"))
    assert train
    assert test
    assert not train & test


def test_new_images_do_not_move_others_between_training_and_test(clone, pets):
    clone.added(pets)
    before = sides(clone)
    for number in range(10, 60):
        save(pets / "cat" / f"{number}.png", 5000 + number)
    clone.add(pets, name="mine", update=True)
    clone.fetch("mine")
    after = sides(clone)
    assert len(after) == 80
    assert {name: after[name] for name in before} == before
    assert 2 <= sum(after[name] == "test" for name in after.keys() - before.keys()) <= 20


def test_the_same_image_in_two_classes_is_shown(clone, pets):
    shutil.copy(pets / "cat" / "1.png", pets / "dog" / "copied.png")
    lines = clone.add(pets)
    assert "Conflicts: 1 image in more than one class." in lines
    assert "  cat/1.png (cat) = dog/copied.png (dog)" in lines


# --- run again --------------------------------------------------------------------------------------


def test_an_unchanged_folder_is_known_without_reading_it(clone, pets, monkeypatch):
    clone.add(pets)
    monkeypatch.setattr("pipeline.data.adding.add.look", None)
    [line] = clone.add(pets)
    assert line.endswith("has not changed since conf/data/pets.yaml was written: 30 images.")


def test_a_file_with_another_time_and_the_same_content_is_no_change(clone, pets):
    clone.add(pets)
    before = clone.conf("pets")
    os.utime(pets / "cat" / "1.png")
    assert clone.add(pets)[-1] == "Everything is as pinned in conf/data/pets.yaml."
    assert clone.conf("pets") == before


def test_what_changed_is_said_and_update_pins_it(clone, pets):
    clone.add(pets)
    before = clone.conf("pets")
    save(pets / "cat" / "new.png", 999)
    save(pets / "emu" / "1.png", 1001)
    (pets / "dog" / "3.png").unlink()
    (pets / "dog" / "4.png").rename(pets / "owl" / "from dog.png")
    save(pets / "owl" / "5.png", 2000)
    with pytest.raises(PipelineError, match=r"Nothing was written\. .*--update` pins what is there"):
        clone.add(pets)
    assert clone.conf("pets") == before
    lines = clone.add(pets, update=True)
    at = lines.index("Since conf/data/pets.yaml was written:")
    assert lines[at + 1 : at + 6] == [
        "  cat: 1 image added",
        "  emu: 1 image added",
        "  dog: 1 image removed",
        "  owl: 1 image changed",
        "  1 image relabelled from dog to owl",
    ]
    after = clone.conf("pets")
    assert after["classes"] == ["cat", "dog", "owl", "emu"]  # the old ones keep their numbers
    assert after["sources"][0]["test_below"][:3] == before["sources"][0]["test_below"]
    clone.fetch("pets")


def test_an_update_keeps_the_comments_of_the_user_and_says_so_if_it_can_not(clone, pets):
    clone.add(pets)
    file = clone.workspace.root / "conf" / "data" / "pets.yaml"
    text = file.read_text()
    mine = text.replace("timeout: 20.0", "# slow here\ntimeout: 40.0  # mine").replace(
        "  - kind", "  # theirs\n  - kind"
    )
    file.write_text(mine)
    save(pets / "no" / "1.png", 999)
    lines = clone.add(pets, update=True)
    assert not any("rewritten" in line for line in lines)
    after = file.read_text()
    assert after.startswith("# 31 images in 4 classes ")
    assert clone.conf("pets")["classes"] == ["cat", "dog", "owl", "no"]
    for comment in (
        "# slow here\ntimeout: 40.0  # mine",
        "  # theirs\n  - kind",
        "# in the order of the labels; pinned",
    ):
        assert comment in after
    changed = set(after.splitlines()) ^ set(mine.splitlines())
    assert {line.split()[0] for line in changed} <= {
        *("#", "classes:", "images:", "test_below:"),
        *("train_images:", "train_labels:", "test_images:", "test_labels:"),
    }
    clone.fetch("pets")

    file.write_text(after + "timeout: 30.0\n")
    save(pets / "no" / "2.png", 998)
    assert any("your comments and formatting are lost" in line for line in clone.add(pets, update=True))
    clone.fetch("pets")


def test_a_folder_that_changed_is_refused_with_both_counts_and_the_remedy(clone, pets):
    clone.add(pets)
    save(pets / "cat" / "new.png", 999)
    with pytest.raises(PipelineError) as refusal:
        clone.fetch("pets")
    assert "has 31 images now, but 30 are pinned" in str(refusal.value)
    assert f"`pipeline add-data {pets} --name pets --update`" in str(refusal.value)
    assert not clone.workspace.raw.exists()


def test_in_a_clone_that_did_not_pin_them_the_counts_are_said(clone, pets):
    clone.add(pets)
    shutil.rmtree(clone.workspace.scratch)
    save(pets / "cat" / "new.png", 999)
    lines = clone.add(pets, update=True)
    assert any("30 images were pinned, 31 images are there now" in line for line in lines)


def test_a_reader_edited_by_hand_is_pinned_by_update(clone, pets):
    clone.add(pets)
    path = clone.workspace.root / "conf" / "data" / "pets.yaml"
    path.write_text(path.read_text().replace("colour: rgb", "colour: grey"))
    with pytest.raises(PipelineError, match="its train_images has the SHA-256"):
        clone.fetch("pets")
    clone.add(pets, update=True)
    assert clone.fetch("pets")["train_images"].shape == (24, 9, 9)


def test_an_existing_file_is_not_overwritten_unless_forced(clone, pets, tmp_path):
    with pytest.raises(PipelineError, match=r"conf/data/mnist\.yaml exists and describes other data"):
        clone.add(pets, name="mnist")
    clone.add(pets, name="mnist", force=True)
    assert clone.conf("mnist")["classes"] == ["cat", "dog", "owl"]
    (clone.workspace.root / "conf" / "data" / "odd.yaml").write_text("a: [")
    with pytest.raises(PipelineError, match="does not describe a data set"):
        clone.add(pets, name="odd")
    with pytest.raises(PipelineError, match=r"no conf/data/other\.yaml to update"):
        clone.add(pets, name="other", update=True)


# --- what breaks others -----------------------------------------------------------------------------


def test_files_that_are_not_pictures_are_skipped_and_named(clone, pets, tmp_path):
    save(tmp_path / "secret.png", 1)
    (pets / "cat" / "link.png").symlink_to(tmp_path / "secret.png")
    (pets / "cat" / "dead.png").symlink_to(tmp_path / "nowhere.png")
    (pets / "cat" / "text.png").write_text("I am a text")
    (pets / "cat" / "empty.png").write_bytes(b"")
    (pets / "dog" / "half.png").write_bytes((pets / "dog" / "1.png").read_bytes()[:100])
    (pets / "top.png").write_bytes((pets / "dog" / "1.png").read_bytes())
    os.mkfifo(pets / "cat" / "pipe.png")
    (pets / "empty class").mkdir()
    for hidden in (".DS_Store", "cat/.DS_Store", "cat/Thumbs.db", ".git/config", "__MACOSX/cat/._1.png"):
        (pets / hidden).parent.mkdir(exist_ok=True, parents=True)
        (pets / hidden).write_bytes(b"x")
    lines = clone.add(pets)
    assert "The class 'empty class' has no images and is left out." in lines
    assert "Skipped: 7 files." in lines
    said = "\n".join(lines)
    for name, reason in (
        ("cat/link.png", "is a link that leads nowhere or out of the folder"),
        ("cat/dead.png", "is a link that leads nowhere"),
        ("cat/text.png", "is not a PNG"),
        ("cat/empty.png", "is empty"),
        ("dog/half.png", "is damaged"),
        ("top.png", "is not in a class folder"),
        ("cat/pipe.png", "is not a file"),
    ):
        assert re.search(rf"^  {re.escape(name)} {reason}", said, re.MULTILINE), name
    assert len(clone.fetch("pets")["train_labels"]) == 24
    conf = clone.workspace.root / "conf" / "data" / "pets.yaml"
    conf.write_text(conf.read_text().replace("unreadable: skip", "unreadable: refuse"))
    with pytest.raises(PipelineError, match=r"(text|empty|half)\.png is .*set unreadable to skip"):
        clone.fetch("pets")


def test_a_picture_that_is_left_out_does_not_move_others(clone, pets):
    first, pictures = clone.added(pets), read_pictures(clone.workspace.raw)
    Image.new("L", (5, 5)).save(pets / "0.png")
    second, with_stray = clone.added(pets, image_size="9x9", force=True), read_pictures(clone.workspace.raw)
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array)
    assert with_stray.names == pictures.names
    for name, sizes in pictures.sizes.items():
        np.testing.assert_array_equal(with_stray.sizes[name], sizes)


@pytest.mark.parametrize(
    "names",
    [
        ("no", "010", "1e3", "null"),
        ("10", "9", "1"),
        ("a, b", "a: b", "- c", "#d", "'e'", '"f"', "{g", "[h", "*i", "&j", "!k", "%l", "@m", "`n", "?"),
        ("two\nlines", "日本", "Ärger", " space ", "back\\slash", "tab\there"),
        ("Cat", "cat"),
    ],
)
def test_classes_of_any_name_are_kept_apart(clone, tmp_path, names):
    for number, name in enumerate(names):
        for copy in range(5):
            save(tmp_path / "odd" / name / f"{copy}\n, ü.png", 10 * number + copy)
    arrays = clone.added(tmp_path / "odd")
    classes = clone.conf("mine")["classes"]
    assert sorted(classes) == sorted(unicodedata.normalize("NFC", name) for name in names)
    found = read_pictures(clone.workspace.raw).names["test_names"]
    assert [name.split("/")[0] for name in found] == [classes[label] for label in arrays["test_labels"]]


def test_numbers_are_in_their_order(clone, tmp_path):
    for name in ("10", "9", "1"):
        for copy in range(5):
            save(tmp_path / "odd" / name / f"{copy}.png", 10 * int(name) + copy)
    clone.add(tmp_path / "odd")
    assert clone.conf("odd")["classes"] == ["1", "9", "10"]


def test_two_normal_forms_of_one_name_are_refused(clone, pets):
    for form in ("NFC", "NFD"):
        save(pets / unicodedata.normalize(form, "Hündin") / "1.png", 7)
    with pytest.raises(PipelineError, match="two folders are both called 'Hündin'"):
        clone.add(pets)


def test_a_class_with_one_image_trains(clone, pets):
    save(pets / "emu" / "1.png", 77)
    assert 3 in clone.added(pets)["train_labels"]


def test_a_thousand_classes_are_added_and_one_more_is_refused(clone, tmp_path):
    for number in range(1000):
        for copy in range(2):
            save(tmp_path / "many" / f"c{number}" / f"{copy}.png", 2 * number + copy, (2, 2))
    clone.added(tmp_path / "many", test_fraction=0.5)
    assert len(clone.conf("mine")["classes"]) == 1000
    save(tmp_path / "many" / "more" / "1.png", 5000, (2, 2))
    with pytest.raises(PipelineError, match="1,001 classes, more than 1,000"):
        clone.add(tmp_path / "many", name="other")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda root: (root / "empty").mkdir(), "has no PNG, .* pictures"),
        (lambda root: save(root / "empty" / "cat" / "1.png", 1), "one class, 'cat'"),
        (lambda root: save(root / "empty" / "1.png", 1), "put the images of each class into a folder"),
        (
            lambda root: save(root / "empty" / "1.txt", 1, format="PPM"),
            r"(?s)has no PNG, .* pictures.*1\.txt is not a PNG",
        ),
        (lambda root: None, "There is no"),
        (lambda root: (root / "empty").write_bytes(b"\x80\x04abc"), "is a pickle"),
        (lambda root: (root / "empty").write_bytes(b"hello"), "can't be read as images"),
        (lambda root: save(root / "empty", 1), "is one picture"),
        (
            lambda root: [save(root / "empty" / name / "1.png", ord(name)) for name in "ab"],
            "there are no test images",
        ),
    ],
)
def test_what_no_classifier_can_be_trained_on_is_refused(clone, tmp_path, make, reason):
    make(tmp_path)
    with pytest.raises(PipelineError, match=reason):
        clone.add(tmp_path / "empty", name="mine")
    assert not (clone.workspace.root / "conf" / "data" / "mine.yaml").exists()


@pytest.mark.parametrize("name", ["no", "0x1", "../x", "a b", "", "null", "-x"])
def test_an_invalid_name_is_refused(clone, pets, name):
    with pytest.raises(PipelineError, match="can't be a name in conf/data"):
        clone.add(pets, name=name)


def test_a_class_that_reads_as_a_reference_is_refused(clone, pets):
    save(pets / "${oc.env:HOME}" / "1.png", 3)
    with pytest.raises(PipelineError, match="can't be used in conf/"):
        clone.add(pets)


# --- memory -----------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from pipeline.artifacts.workspace import Workspace
from pipeline.config.compose import compose
from pipeline.data.adding.add import add_data
from pipeline.data.adding.options import AddOptions
from pipeline.stages import fetch
from PIL import Image
def peak():
    return max(
        int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")
    )
before, root = peak(), Path(sys.argv[1])
list(add_data(AddOptions(sys.argv[2], name="photos", image_size=sys.argv[3]), Workspace(root), root))
fetch.run(compose(root / "conf", ["data=photos"]), Workspace(root))
print(before, peak())
"""


def peaks_of_adding(clone, path, image_size):
    """Return the memory in megabytes before and after the data were added and fetched."""
    (clone.workspace.root / "conf" / "data" / "photos.yaml").unlink(missing_ok=True)
    command = [sys.executable, "-c", CHILD, str(clone.workspace.root), str(path), image_size]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()[-2:]]


def pack(archive, name, content):
    if isinstance(archive, zipfile.ZipFile):
        archive.writestr(name, content)
        return
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [tarfile.open, zipfile.ZipFile], ids=["tar", "zip"])
def test_of_a_small_picture_only_its_name_and_digest_stay_in_memory(clone, tmp_path, kind):
    rng = np.random.default_rng(0)
    peaks = []
    for count in (5_000, 65_000):  # 4 and 51 MB as arrays
        with kind(tmp_path / f"{count}", "w") as archive:
            for number in range(count):
                file = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)).save(file, "BMP")
                pack(archive, f"{'ab'[number % 2]}/{number}.bmp", file.getvalue())
        peaks.append(peaks_of_adding(clone, tmp_path / f"{count}", "28x28"))
    assert peaks[1][1] - peaks[0][1] < 60_000 * 0.6e-3


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_photos(clone, tmp_path):
    rng = np.random.default_rng(0)
    photos = []
    for _ in range(20):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((320, 240))
        file = io.BytesIO()
        coarse.save(file, "JPEG")
        photos.append(file.getvalue())
    peaks = []
    for count in (300, 1800):  # 45 and 270 MB as arrays
        folder = tmp_path / f"photos{count}"
        for number in range(count):
            path = folder / "ab"[number % 2] / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photos[number % 20])
        peaks.append(peaks_of_adding(clone, folder, "224x224"))
    assert peaks[1][1] - peaks[0][1] < 40
    # The images of the training set are in memory at no time, only pieces of a few megabytes.
    assert peaks[1][1] - peaks[1][0] < 300
