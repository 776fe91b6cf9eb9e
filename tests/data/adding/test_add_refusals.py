"""What pipeline add-data skips or refuses, and the names of classes that it accepts."""

import os
import re
import unicodedata

import pytest
from pictures import save

from pipeline.data.names import read_pictures
from pipeline.errors import PipelineError


def test_files_that_are_not_pictures_are_skipped_and_named(clone, pets, tmp_path):
    save(tmp_path / "secret.png", 1)
    (pets / "cat" / "link.png").symlink_to(tmp_path / "secret.png")
    (pets / "cat" / "dead.png").symlink_to(tmp_path / "nowhere.png")
    (pets / "cat" / "text.png").write_text("I am a text")
    (pets / "cat" / "empty.png").write_bytes(b"")
    (pets / "dog" / "half.png").write_bytes((pets / "dog" / "1.png").read_bytes()[:100])
    (pets / "top.png").write_bytes((pets / "dog" / "1.png").read_bytes())
    (pets / "dog" / "copy.png").symlink_to(pets / "dog" / "1.png")
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
    assert clone.conf("pets")["sources"][0]["images"] == 31
    clone.fetch("pets")
    conf = clone.workspace.root / "conf" / "data" / "pets.yaml"
    conf.write_text(conf.read_text().replace("unreadable: skip", "unreadable: refuse"))
    with pytest.raises(PipelineError, match=r"(text|empty|half)\.png is .*set unreadable to skip"):
        clone.fetch("pets")


@pytest.mark.parametrize("path", [300 * "x", 5000 * "x/"])
def test_a_path_that_is_too_long_is_refused(clone, path):
    with pytest.raises(PipelineError, match=r"x \.\.\.: File name too long|x/ \.\.\.: File name too long"):
        clone.add(path, name="mine")


def test_sizes_stay_with_their_pictures_if_one_before_them_has_no_class(clone, pets):
    save(pets / "0.png", 97, (5, 4))
    for number in range(9):
        save(pets / "owl" / f"wide{number}.png", 1000 + number, (20 + number, 3))
    arrays = clone.added(pets)
    found = read_pictures(clone.workspace.raw)
    sizes = {}
    for split in ("train", "test"):
        rows = map(tuple, found.sizes[f"{split}_sizes"].tolist())
        sizes |= zip(found.names[f"{split}_names"], rows, strict=True)
    assert {name: size for name, size in sizes.items() if size != (9, 9)} == {
        f"owl/wide{number}.png": (3, 20 + number) for number in range(9)
    }
    assert len(sizes) == len(arrays["train_labels"]) + len(arrays["test_labels"]) == 39


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


def test_classes_named_by_numbers_are_sorted_as_numbers(clone, tmp_path):
    for name in ("10", "9", "1"):
        for copy in range(5):
            save(tmp_path / "odd" / name / f"{copy}.png", 10 * int(name) + copy)
    clone.add(tmp_path / "odd")
    assert clone.conf("odd")["classes"] == ["1", "9", "10"]


def test_two_unicode_forms_of_one_class_name_are_refused(clone, pets):
    for form in ("NFC", "NFD"):
        save(pets / unicodedata.normalize(form, "Hündin") / "1.png", 7)
    with pytest.raises(PipelineError, match="two folders are both called 'Hündin'"):
        clone.add(pets)


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
def test_data_that_cannot_train_a_classifier_are_refused(clone, tmp_path, make, reason):
    make(tmp_path)
    with pytest.raises(PipelineError, match=reason):
        clone.add(tmp_path / "empty", name="mine")
    assert not (clone.workspace.root / "conf" / "data" / "mine.yaml").exists()


@pytest.mark.parametrize("name", ["no", "0x1", "../x", "a b", "", "null", "-x"])
def test_an_invalid_name_is_refused(clone, pets, name):
    with pytest.raises(PipelineError, match="can't be a name in conf/data"):
        clone.add(pets, name=name)


def test_a_path_that_is_not_utf_8_is_refused(clone, pets):
    with pytest.raises(PipelineError, match=r"/p\\udcff' has bytes that are not UTF-8.*: rename it"):
        clone.add(pets.rename(pets.parent / os.fsdecode(b"p\xff")))


@pytest.mark.parametrize(
    ("path", "reason"),
    [("", "path is empty"), (".", "contains this"), ("..", "contains"), ("~$a", r"There is no .*/~\$a\.$")],
)
def test_a_path_that_would_include_the_repository_is_refused(clone, pets, path, reason):
    with pytest.raises(PipelineError, match=reason):
        clone.add(path)


def test_the_reason_for_refusing_a_setting_has_no_words_of_a_library(clone, pets):
    with pytest.raises(PipelineError, match=r"label_pattern=\(: is not a valid regular expression"):
        clone.add(pets, settings=("label_pattern=(",))


def test_an_address_that_cannot_be_read_is_named_once(clone, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(PipelineError, match="refused") as refused:
        clone.add("http://127.0.0.1:9/pets.zip")
    assert str(refused.value).count("http://") == 1


def test_a_class_name_that_looks_like_a_reference_is_refused(clone, pets):
    save(pets / "${oc.env:HOME}" / "1.png", 3)
    with pytest.raises(PipelineError, match="can't be used in conf/"):
        clone.add(pets)


def test_classes_of_equal_pictures_have_no_test_images_whatever_the_fraction(clone, tmp_path):
    for label in "ab":
        for number in range(10):
            save(tmp_path / "same" / label / f"{number}.png", ord(label))
    with pytest.raises(
        PipelineError, match="no test images: the 20 images are copies of 2, and copies are nev"
    ):
        clone.add(tmp_path / "same", test_fraction=0.5)
