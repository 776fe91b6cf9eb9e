"""A table of labels that is damaged, or has something else than labels, is refused in a sentence."""

import pytest

from pipeline.data.batches import Listing
from pipeline.data.layout import arrange, natural_order
from pipeline.errors import PipelineError


def classes(name, content):
    listing = Listing(total=None)
    listing.tables[name] = content
    return arrange(["a.png", "b.png"], listing).classes


@pytest.mark.parametrize(
    "line", [b"1", b"null", b"[1]", b'["file_name", "label"]', b'"file_name"', b"[" * 100_000]
)
def test_a_line_that_is_no_object_is_refused(line):
    with pytest.raises(PipelineError, match=r"metadata\.jsonl can't be read as a table"):
        classes("metadata.jsonl", b'{"file_name": "a.png", "label": "x"}\n' + line)


def test_several_labels_of_one_image_are_not_a_class():
    with pytest.raises(PipelineError, match=r"metadata\.jsonl has several labels for a\.png"):
        classes("metadata.jsonl", b'{"file_name": "a.png", "label": ["cat", "dog"]}')


def test_two_rows_of_an_image_with_different_labels_are_refused():
    assert classes("metadata.csv", b"file_name,label\na.png,x\na.png,x") == ("x",)
    with pytest.raises(PipelineError, match=r"metadata\.csv has several labels for a\.png"):
        classes("metadata.csv", b"file_name,label\na.png,x\nb.png,x\na.png,y")


def test_a_table_from_windows_has_the_same_paths_and_labels():
    listing = Listing()
    listing.tables["metadata.csv"] = b"\xef\xbb\xbfFile_name;Label \r\ninner\\a.png;cat \r\nb.png;cat\r\n"
    layout = arrange(["inner/a.png", "b.png"], listing)
    assert (layout.classes, len(layout.places)) == (("cat",), 2)


def test_a_column_of_a_table_has_the_split_and_precedes_the_folder():
    listing = Listing()
    listing.tables["metadata.csv"] = b"file_name,breed,split\ntrain/a.png,x,test\ntrain/b.png,y,\nc.png,y,val"
    places = arrange(["train/a.png", "train/b.png", "c.png"], listing).places
    assert [place.split for place in places.values()] == ["test", "train", "validation"]
    listing.tables["metadata.csv"] = b"file_name,breed,split\na.png,x,eval"
    with pytest.raises(PipelineError, match=r"metadata\.csv, for a\.png, has 'eval' as its split"):
        arrange(["a.png"], listing)


def test_numbers_of_any_length_are_in_order():
    long = 5000 * "1"
    assert natural_order(["10", long, "9", "09", "0", "00"]) == ("0", "00", "09", "9", "10", long)
    table = f"file_name,label\na.png,{long}\nb.png,2\n"
    assert classes("metadata.csv", table.encode()) == ("2", long)


def test_spaces_after_the_separators_and_superfluous_fields_of_a_row_do_not_matter():
    table = "file_name, label, note\na.png, cat, x\nb.png, dog, y,\n"
    assert classes("metadata.csv", table.encode()) == ("cat", "dog")
    assert classes("metadata.csv", b"file_name,breed\na.png,cat\nb.png,dog,\n") == ("cat", "dog")


def test_the_only_other_column_has_the_labels_and_of_several_one_is_called_so():
    assert classes("metadata.jsonl", b'{"file_name": "a.png", "breed": "cat"}') == ("cat",)
    # Captions are no classes.
    assert classes("metadata.jsonl", b'{"file_name": "a.png", "text": "a cat", "by": "me"}') == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"name,label\na.png,cat", "has no column file_name"),
        (b"file_name,label\na.png,", "has a row without a label"),
        (b"file_name,label\n,cat", "has a row without file_name"),
    ],
)
def test_a_table_without_names_or_labels_is_refused(content, reason):
    with pytest.raises(PipelineError, match=rf"metadata\.csv {reason}"):
        classes("metadata.csv", content)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["a/b/cat/1.png", "a/b/dog/2.png"], ("cat", "dog")),
        (["a/train/cat/1.png", "a/test/dog/2.png"], ("cat", "dog")),
        # A folder of splits is no wrapping, and neither is one that has pictures itself.
        (["train/cat/1.png", "train/dog/2.png"], ("cat", "dog")),
        (["cat/1.png", "cat/young/2.png"], ("cat",)),
        # Two folders of pictures are classes, whatever they are called.
        (["train/1.png", "car/2.png"], ("car", "train")),
        (["train/1.png", "test/2.png"], ("test", "train")),
    ],
)
def test_classes_are_the_folders_below_what_wraps_them_and_below_splits(files, found):
    assert arrange(files, Listing()).classes == found


def test_a_picture_next_to_the_splits_has_no_class():
    layout = arrange(["train/cat/1.png", "test/cat/2.png", "train/3.png", "4.png"], Listing())
    assert {name: place.split for name, place in layout.places.items()} == {
        "train/cat/1.png": "train",
        "test/cat/2.png": "test",
    }
    assert layout.unplaced == dict.fromkeys(["train/3.png", "4.png"], "is not in a class folder")


@pytest.mark.parametrize(
    ("files", "skipped"),
    [
        # Another folder next to the splits, in which pictures have no class.
        (["train/cat/1.png", "train/dog/2.png", "test/cat/3.png"], ["other/4.png", "test/5.png"]),
        (["a/train/cat/1.png", "a/train/dog/2.png", "a/val/cat/3.png"], ["a/a/train/cat/1.png"]),
        # Kaggle's names, and its folders in folders of the same name.
        (
            ["seg_train/seg_train/cat/1.png", "seg_train/seg_train/dog/2.png", "seg_test/seg_test/cat/3.png"],
            ["seg_pred/seg_pred/4.png"],
        ),
        (["training_set/cat/1.png", "training_set/dog/2.png", "test_set/cat/3.png"], []),
        (["a_train/a_train/cat/1.png", "a_train/a_train/dog/2.png"], ["a_test/a_test/cat.png"]),
    ],
)
def test_splits_may_be_called_otherwise_and_have_other_folders_next_to_them(files, skipped):
    layout = arrange([*files, *skipped], Listing())
    assert [layout.places[file].label for file in files] == ["cat", "dog", "cat"][: len(files)]
    splits = [layout.places[file].split for file in files]
    assert splits in (["train", "train", "test"], ["train", "train", "validation"], ["train", "train"])
    assert layout.unplaced == dict.fromkeys(skipped, "is not in a class folder")
    assert layout.classes == ("cat", "dog")


@pytest.mark.parametrize(
    "classes", [("freight_train", "passenger_train"), ("car", "train"), ("car", "test", "val")]
)
def test_classes_whose_names_are_words_for_splits_are_none_without_folders_for_training_and_testing(classes):
    assert arrange([f"{name}/old/1.png" for name in classes], Listing()).classes == classes


def test_folders_next_to_the_splits_that_have_no_pictures_do_not_matter():
    listing = Listing(folders=["notes", "train", "train/cat", "train/dog"])
    assert arrange(["train/cat/1.png", "train/dog/2.png"], listing).classes == ("cat", "dog")
