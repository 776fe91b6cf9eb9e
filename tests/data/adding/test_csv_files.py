"""CSV files as they are usually published give exactly the original arrays."""

import csv
import gzip

import pytest
from pictures import save
from published import TEST, TRAIN, assert_original, csv_bytes, digits, kaggle_rows

from pipeline.data.sources import csv as csv_source
from pipeline.errors import PipelineError


@pytest.mark.parametrize("form", ["plain", "gzip", "bom and crlf", "quoted"])
def test_csv_as_on_kaggle(clone, tmp_path, form):
    folder = tmp_path / "fashion"
    folder.mkdir()
    for name, part in (("fashion-mnist_train.csv", TRAIN), ("fashion-mnist_test.csv", TEST)):
        rows = kaggle_rows(part, "pixel1")
        content = {
            "plain": lambda rows: csv_bytes(rows),
            "gzip": lambda rows: gzip.compress(csv_bytes(rows)),
            "bom and crlf": lambda rows: b"\xef\xbb\xbf" + csv_bytes(rows, "\r\n"),
            "quoted": lambda rows: csv_bytes(rows, quoting=csv.QUOTE_ALL),
        }[form](rows)
        (folder / (f"{name}.gz" if form == "gzip" else name)).write_bytes(content)
    assert_original(clone.added(folder))


def test_kaggles_test_file_without_labels_is_skipped_and_named(clone, tmp_path):
    (tmp_path / "recogniser").mkdir()
    (tmp_path / "recogniser" / "train.csv").write_bytes(csv_bytes(kaggle_rows(TRAIN)))
    (tmp_path / "recogniser" / "test.csv").write_bytes(csv_bytes([row[1:] for row in kaggle_rows(TEST)]))
    lines = clone.add(tmp_path / "recogniser", name="mine")
    assert "  test.csv has no label column" in lines
    arrays = clone.fetch("mine")
    assert len(arrays["train_labels"]) + len(arrays["test_labels"]) == 300
    assert 40 < len(arrays["test_labels"]) < 80


def test_csv_of_floats_and_with_a_column_for_the_split(clone, tmp_path):
    images, labels = digits()
    rows = [["usage", "digit", *(f"p{at}" for at in range(64))]]
    for part, usage in ((TRAIN, "Training"), (TEST, "test")):
        for image, label in zip(images[part], labels[part], strict=True):
            rows.append([usage, label, *(f"{value / 255:.6f}" for value in image.ravel())])
    (tmp_path / "floats.csv").write_bytes(csv_bytes(rows))
    assert_original(clone.added(tmp_path / "floats.csv"))


@pytest.mark.parametrize("label", ["²", "--1", "9" * 30])
def test_labels_that_only_look_like_numbers_are_names(clone, tmp_path, label):
    images, _ = digits()
    rows = [["label", *(f"pixel{at}" for at in range(64))]]
    rows += [[("1", label)[number % 2], *image.ravel()] for number, image in enumerate(images[TRAIN][:20])]
    (tmp_path / "odd.csv").write_bytes(csv_bytes(rows))
    clone.add(tmp_path / "odd.csv", name="mine")
    assert set(clone.conf("mine")["classes"]) == {"1", label}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"label,pixel0\n\xff,1\n", "is not UTF-8 text: save it as CSV in UTF-8"),
        (gzip.compress(b"label,pixel0\n" + b"1,2\n" * 50_000)[:-9], "is not a complete gzip file"),
        (b"filename,label\na.png,x\nb.png,\n", "has no label or no file name in line 3"),
        (b"filename,label\na.png,x\nb.png\n", "has no label or no file name in line 3"),
        (b"filename,label\na.png," + b"x" * 10_000_000, "has an endless line"),
    ],
    ids=["text", "gzip", "empty", "short", "endless"],
)
def test_a_damaged_table_is_refused(clone, tmp_path, content, reason):
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(PipelineError, match=reason):
        clone.add(tmp_path / "bad.csv")


def test_a_folder_whose_tables_have_no_labels_is_refused(clone, tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "one.csv").write_bytes(csv_bytes([row[1:] for row in kaggle_rows(TRAIN)]))
    with pytest.raises(PipelineError, match="it has no CSV file with a label column"):
        clone.add(tmp_path / "tables")


def test_a_label_means_the_same_class_in_every_row(clone, tmp_path, monkeypatch):
    monkeypatch.setattr(csv_source, "_ROWS", 4)
    images, _ = digits()
    labels = ["007", "008"] * 9 + ["007", "00A"] * 9
    rows = [["label", *(f"pixel{at}" for at in range(64))]]
    rows += [[label, *image.ravel()] for label, image in zip(labels, images, strict=False)]
    (tmp_path / "codes.csv").write_bytes(csv_bytes(rows))
    clone.add(tmp_path / "codes.csv", name="mine")
    assert clone.conf("mine")["classes"] == ["00A", "7", "8"]
    assert "labels" not in clone.conf("mine")["sources"][0]  # Only numbers have other names in conf/.
    assert len(clone.fetch("mine")["train_labels"]) > 20


def test_a_folder_called_like_a_table_is_no_table(clone, tmp_path):
    (tmp_path / "tables" / "old.csv").mkdir(parents=True)
    (tmp_path / "tables" / "all.csv").write_bytes(csv_bytes(kaggle_rows(TRAIN)))
    clone.add(tmp_path / "tables", name="mine")
    assert clone.conf("mine")["sources"][0]["images"] == 300
    (tmp_path / "tables" / "all.csv").rename(tmp_path / "tables" / "old.csv" / "part.csv")
    with pytest.raises(PipelineError, match="no PNG"):
        clone.add(tmp_path / "tables")


def test_texts_that_can_not_be_file_names_are_refused_with_their_line(clone, tmp_path):
    rows = [["image", "label"], *([10 * f"{number:040x}", number % 2] for number in range(20))]
    (tmp_path / "encoded.csv").write_bytes(csv_bytes(rows))
    with pytest.raises(PipelineError, match=r"names 0{40}.* in line 2: File name too long"):
        clone.add(tmp_path / "encoded.csv")


def test_csv_of_file_names(clone, tmp_path):
    rows = [["filename", "class"]]
    for number in range(20):
        save(tmp_path / "listed" / "images" / f"{number}.png", number)
        rows.append([f"images/{number}.png", "ab"[number % 2]])
    (tmp_path / "listed" / "all.csv").write_bytes(csv_bytes(rows))
    arrays = clone.added(tmp_path / "listed" / "all.csv")
    assert clone.conf("mine")["classes"] == ["a", "b"]
    assert len(arrays["train_labels"]) == 16
    (tmp_path / "listed" / "all.csv").write_bytes(csv_bytes([*rows, ["../../secret.png", "a"]]))
    with pytest.raises(PipelineError, match="is outside of the table's folder: refused"):
        clone.add(tmp_path / "listed" / "all.csv", name="other")


@pytest.mark.parametrize("label", [1, 0.5, True, "no"])
def test_the_only_other_column_of_a_table_of_files_is_the_label(clone, tmp_path, label):
    rows = [["id", "filename", "breed"]]
    for number in range(20):
        save(tmp_path / "listed" / f"{number}.png", number)
        rows.append([number, f"{number}.png", label if number % 2 else "x"])
    (tmp_path / "listed" / "all.csv").write_bytes(csv_bytes(rows))
    clone.add(tmp_path / "listed" / "all.csv", name="mine")
    assert clone.conf("mine")["classes"] == sorted([str(label), "x"])
    with_more = [[*row, "y"] for row in rows]
    (tmp_path / "listed" / "all.csv").write_bytes(csv_bytes(with_more))
    with pytest.raises(PipelineError, match=r"no label column: .*breed.*--set label_column"):
        clone.add(tmp_path / "listed" / "all.csv")
    clone.add(tmp_path / "listed" / "all.csv", name="other", settings=("label_column=breed",))
    assert clone.conf("other")["classes"] == sorted([str(label), "x"])
    assert clone.conf("other")["sources"][0]["label_column"] == "breed"


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "id"])
def test_the_row_numbers_of_a_csv_are_not_pixels(clone, tmp_path, name):
    rows = kaggle_rows(slice(0, 360))
    numbered = [[name, *rows[0], "split"]]
    numbered += [[at, *row, "train" if at < 300 else "test"] for at, row in enumerate(rows[1:])]
    (tmp_path / "numbered.csv").write_bytes(csv_bytes(numbered))
    assert_original(clone.added(tmp_path / "numbered.csv"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: [*rows[:3], rows[3][:-1], *rows[4:]], "has 64 fields in row 4, and 65 columns"),
        (lambda rows: [*rows[:3], [1, "NaN", *rows[3][2:]], *rows[4:]], "not finite numbers"),
        (lambda rows: [*rows[:3], [1, "x", *rows[3][2:]], *rows[4:]], "could not convert string 'x'"),
        (lambda rows: [*rows[:3], [1, 256, *rows[3][2:]], *rows[4:]], "from 0 to 256; they must be whole"),
        (lambda rows: [*rows[:3], ["", *rows[3][1:]], *rows[4:]], "has no label in row 4"),
        (lambda rows: [row[:-1] for row in rows], "63 pixels per image, which is not a square"),
        (lambda rows: rows[1:], "has no column names"),
        (lambda rows: [row[1:] for row in rows], "has no label column"),
        (lambda rows: [["label", *range(200_000)]], "has 200,001 columns"),
        (lambda rows: rows[:1], "has no"),
    ],
)
def test_a_csv_that_is_not_a_table_of_images_is_refused(clone, tmp_path, change, reason):
    (tmp_path / "bad.csv").write_bytes(csv_bytes(change(kaggle_rows(TRAIN))))
    with pytest.raises(PipelineError, match=reason):
        clone.add(tmp_path / "bad.csv")
    assert not (clone.workspace.root / "conf" / "data" / "bad.yaml").exists()


def listed(folder, values, column="split"):
    """Write pictures and a table that names them, with a third column."""
    rows = [["image", "label", column]]
    for number, value in enumerate(values):
        save(folder / "inner" / f"{number}.png", number)
        rows.append([rf".\inner\{number}.png", "ab"[number % 2], value])
    (folder / "labels.csv").write_bytes(csv_bytes(rows, "\r\n"))
    return folder / "labels.csv"


def test_a_column_says_which_pictures_are_for_testing_and_paths_may_be_those_of_windows(clone, tmp_path):
    values = ["train"] * 8 + ["Val"] * 4 + ["PrivateTest"] * 3
    arrays = clone.added(listed(tmp_path, values, "subset"))
    assert (clone.conf("mine")["validation_images"], len(arrays["test_labels"])) == (4, 3)
    for value in ("eval", "1"):
        with pytest.raises(PipelineError, match=rf"labels\.csv line 10 has '{value}' as its split"):
            clone.add(listed(tmp_path, [*["train"] * 8, value]), name="other")


def test_a_split_of_a_row_of_pixels_that_is_none_is_refused(clone, tmp_path):
    rows = [
        [*row, part] for row, part in zip(kaggle_rows(TRAIN), ["split", *["train"] * 9, "eval"], strict=False)
    ]
    (tmp_path / "odd.csv").write_bytes(csv_bytes(rows))
    with pytest.raises(PipelineError, match=r"odd\.csv row 11 has 'eval' as its split"):
        clone.add(tmp_path / "odd.csv")


def test_the_chosen_column_may_be_called_by_a_number_and_must_exist(clone, tmp_path):
    path = listed(tmp_path, ["x", "y"] * 8, "5")
    clone.add(path, name="mine", settings=("label_column=5",))
    assert clone.conf("mine")["classes"] == ["x", "y"]
    with pytest.raises(PipelineError, match=r"labels\.csv has no column 'lable': it has image, label, 5"):
        clone.add(path, settings=("label_column=lable",))
    with pytest.raises(PipelineError, match="it has no CSV file with a column 'lable'"):
        clone.add(tmp_path, settings=("label_column=lable",))
