"""Tables as they are in practice: names without extensions, pixels as texts, semicolons and tabs."""

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from memory_peaks import peaks_of_adding
from pictures import assert_holds, dog_breeds, save, write

from photos import png
from pipeline.errors import PipelineError

# --- names of files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["", "labels.csv"])
def test_names_without_an_extension_find_their_pictures_and_others_are_counted(clone, tmp_path, given):
    labelled = dog_breeds(tmp_path / "dogs")
    lines = clone.add(tmp_path / "dogs" / given, name="mine")
    assert clone.conf("mine")["classes"] == ["boxer", "pug"]
    assert f"  test/{20:032x}.png is not named in any table" in lines
    assert f"Skipped: {4 if given else 6} files." in lines
    assert_holds(clone.fetch("mine"), labelled)


@pytest.mark.parametrize("given", ["", "trainLabels.csv"])
def test_a_number_of_both_a_training_and_a_test_picture_means_the_training_picture(clone, tmp_path, given):
    rows, labelled = [["id", "label"]], {}
    for number in range(1, 21):
        save(tmp_path / "cifar" / "train" / f"{number}.png", number)
        save(tmp_path / "cifar" / "test" / f"{number}.png", 100 + number)
        rows.append([number, ("cat", "frog")[number % 2]])
        labelled[tmp_path / "cifar" / "train" / f"{number}.png"] = number % 2
    write(tmp_path / "cifar" / "trainLabels.csv", rows)
    # Its labels are all the same, and wrong.
    write(
        tmp_path / "cifar" / "sampleSubmission.csv", [["id", "label"], *([at, "cat"] for at in range(1, 21))]
    )
    lines = clone.add(tmp_path / "cifar" / given, name="mine")
    assert clone.conf("mine")["sources"][0]["images"] == 20
    assert "  test/1.png is not named in any table" in lines
    assert_holds(clone.fetch("mine"), labelled)


def test_a_picture_that_is_named_by_its_path_is_not_reported_as_unnamed(clone, tmp_path):
    rows = [["image", "label"]]
    for number in range(12):
        save(tmp_path / "scans" / "a" / f"s{number}.png", number)
        rows.append([f"./a/s{number}.png" if number < 6 else f"s{number}", number % 2])
    lines = clone.add(write(tmp_path / "scans" / "labels.csv", rows[:-1]), name="mine")
    assert lines[lines.index("Skipped: 1 file.") + 1] == "  a/s11.png is not named in any table"


def test_an_ambiguous_picture_name_is_refused(clone, tmp_path):
    rows = [["file", "label"]]
    for number in range(10):
        for folder in ("left", "right"):
            save(tmp_path / "eyes" / folder / f"{number}.png", number)
        rows.append([number, number % 2])
    table = write(tmp_path / "eyes" / "labels.csv", rows)
    with pytest.raises(PipelineError, match=r"0 may be left/0\.png or right/0\.png"):
        clone.add(table)
    named = write(table, [rows[0], *([rf"left\{name}", label] for name, label in rows[1:])])
    assert len(clone.added(named)["train_labels"]) == 8


def test_a_missing_picture_is_skipped_and_one_outside_the_folder_is_refused(clone, tmp_path):
    labelled = dog_breeds(tmp_path / "dogs")
    gone = next(iter(labelled))
    gone.rename(tmp_path / "elsewhere.png")
    lines = clone.add(tmp_path / "dogs", name="mine")
    assert any(gone.stem in line and line.endswith("is missing") for line in lines)
    gone.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(PipelineError, match="is outside of the table's folder: refused"):
        clone.add(tmp_path / "dogs", name="other")


def test_a_table_that_names_pictures_does_not_hide_the_folders_of_classes(clone, tmp_path):
    rows = [["id", "weight"]]
    for number in range(20):
        save(tmp_path / "pets" / ("cat", "dog")[number % 2] / f"p{number}.png", number)
        rows.append([f"p{number}", number % 7])
    write(tmp_path / "pets" / "weights.csv", rows)
    clone.add(tmp_path / "pets")
    assert clone.conf("pets")["classes"] == ["cat", "dog"]


def roboflow(folder: Path, several: bool = False) -> None:
    for split, count in (("train", 12), ("valid", 4), ("test", 4)):
        rows = [["filename", " cat", " dog"]]
        for number in range(count):
            name = f"{split}{number}_png.rf.{number:08x}.png"
            save(folder / split / name, len(split) * 100 + number)
            rows.append([name, f" {number % 2}", f" {int(several or number % 2 == 0)}"])
        write(folder / split / "_classes.csv", rows)
    (folder / "README.roboflow.txt").write_text("about")


def test_a_table_with_a_column_for_each_class_is_read_if_an_image_has_one(clone, tmp_path):
    roboflow(tmp_path / "one")
    arrays = clone.added(tmp_path / "one")
    conf = clone.conf("mine")
    assert (conf["classes"], conf["validation_images"]) == (["cat", "dog"], 4)
    assert (len(arrays["train_labels"]), len(arrays["test_labels"])) == (16, 4)
    assert arrays["test_labels"].tolist() == [1, 0, 1, 0]
    roboflow(tmp_path / "several", several=True)
    for given in ("", "train/_classes.csv"):
        with pytest.raises(
            PipelineError, match=r"in several classes, cat and dog: an image must have one class"
        ):
            clone.add(tmp_path / "several" / given, name="other")


# --- pixels as one text -----------------------------------------------------------------------------

USAGES = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}


def faces(order, usages=("Training",) * 20 + ("PublicTest",) * 5 + ("PrivateTest",) * 7):
    """Return rows as in FER2013, and the images, of 12×12 pixels."""
    images = np.random.default_rng(0).integers(0, 256, (len(usages), 12, 12), np.uint8)
    rows = [list(order)]
    for number, (image, usage) in enumerate(zip(images, usages, strict=True)):
        text = " ".join(map(str, image.ravel()))
        values = {"emotion": str(number % 3), "pixels": text, "Usage": usage}
        rows.append([values[column] for column in order])
    return rows, images


@pytest.mark.parametrize(
    ("order", "separator"),
    [
        (("emotion", "pixels", "Usage"), ","),
        (("emotion", "Usage", "pixels"), ", "),
        (("Usage", "pixels", "emotion"), ", "),
        (("pixels", "emotion", "Usage"), ";"),
    ],
)
def test_pixels_in_one_column_as_in_fer2013(clone, tmp_path, order, separator):
    rows, images = faces(order)
    path = tmp_path / "fer2013.csv"
    path.write_text("\n".join(separator.join(row) for row in rows) + "\n")
    arrays = clone.added(path)
    conf = clone.conf("mine")
    assert (conf["classes"], conf["validation_images"]) == (["0", "1", "2"], 5)
    np.testing.assert_array_equal(arrays["train_images"], images[:25])
    np.testing.assert_array_equal(arrays["test_images"], images[25:])
    np.testing.assert_array_equal(arrays["test_labels"], np.arange(25, 32) % 3)


def test_fer2013_without_usage_and_with_a_test_file_of_one_column(clone, tmp_path):
    rows, images = faces(("emotion", "pixels"))
    write(
        tmp_path / "fer" / "train.csv",
        [rows[0], *([row[0], f"[{row[1].replace(' ', ', ')}]"] for row in rows[1:])],
    )
    write(tmp_path / "fer" / "test.csv", [[row[1]] for row in rows])
    lines = clone.add(tmp_path / "fer", name="mine")
    assert "  test.csv has no label column" in lines
    arrays = clone.fetch("mine")
    assert len(arrays["train_images"]) + len(arrays["test_images"]) == len(images)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["1", "1 2 3", "Training"], "has 3 pixels in row 4, and 144 in row 2"),
        (["1", "", "Training"], "has 0 pixels in row 4, and 144 in row 2"),
        (["1", " ".join(["x"] * 144), "Training"], r"fer\.csv: could not convert string 'x'.* in row 4"),
        (["1", " ".join(["256"] * 144), "Training"], "from 0 to 256; they must be whole"),
        (["", " ".join(["1"] * 144), "Training"], "has no label in row 4"),
        (["1", " ".join(["1"] * 144)], "has 2 fields in row 4, and 3 columns"),
    ],
)
def test_a_damaged_row_of_pixels_in_one_column_is_named(clone, tmp_path, row, reason):
    rows, _ = faces(("emotion", "pixels", "Usage"))
    rows[3] = row
    with pytest.raises(PipelineError, match=reason):
        clone.add(write(tmp_path / "fer.csv", rows))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows_of_pixels_in_one_column(clone, tmp_path):
    peaks = []
    for count in (2_000, 6_000):  # 5 and 14 MB as arrays, 16 and 49 MB as text
        texts = [" ".join(map(str, row)) for row in np.random.default_rng(0).integers(0, 256, (200, 48 * 48))]
        rows = [[at % 3, f"{at % 256} {texts[at % 200].split(' ', 1)[1]}"] for at in range(count)]
        table = write(tmp_path / f"{count}.csv", [["emotion", "pixels"], *rows])
        peaks.append(peaks_of_adding(clone, table, "48x48")[1])
    assert peaks[1] - peaks[0] < 20


# --- separators -------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("kind", ["pixels", "names", "metadata.csv", "folder of .tsv"])
def test_semicolons_and_tabs_separate_columns_too(clone, tmp_path, separator, kind):
    images = np.random.default_rng(0).integers(0, 256, (40, 5, 5), np.uint8)
    folder = tmp_path / "excel"
    folder.mkdir()
    if kind in ("names", "metadata.csv"):
        rows = [
            ["file_name", "label"],
            *([f"{at}.png", ("Äpfel, rot", "Birnen")[at % 2]] for at in range(40)),
        ]
        for number, image in enumerate(images):
            (folder / f"{number}.png").write_bytes(png(image))
    else:
        rows = [["label", *(f"pixel{at}" for at in range(25))]]
        rows += [[("Äpfel, rot", "Birnen")[at % 2], *image.ravel()] for at, image in enumerate(images)]
    name = {"metadata.csv": "metadata.csv", "folder of .tsv": "all.tsv"}.get(kind, "all.csv")
    path = write(folder / name, rows, separator, "\r\n")
    arrays = clone.added(path if kind == "pixels" else folder)
    assert clone.conf("mine")["classes"] == ["Birnen", "Äpfel, rot"]
    found = {
        image.tobytes(): label
        for image, label in zip(arrays["train_images"], arrays["train_labels"], strict=True)
    }
    assert len(found) == 32
    assert all(found.get(image.tobytes(), 1 - at % 2) == 1 - at % 2 for at, image in enumerate(images))


def test_a_comma_in_the_header_is_the_separator_and_a_csv_hides_tables_with_tabs(clone, tmp_path):
    for number in range(20):
        save(tmp_path / "mixed" / f"{number}.png", number)
    rows = [["image", "class;old"], *([f"{at}.png", f"{'ab'[at % 2]};x"] for at in range(20))]
    write(tmp_path / "mixed" / "all.csv", rows)
    write(tmp_path / "mixed" / "more.tsv", [["image", "label"], ["1.png", "other"]], "\t")
    clone.add(tmp_path / "mixed")
    assert clone.conf("mixed")["classes"] == ["a;x", "b;x"]


@pytest.mark.parametrize("folder", ["data/{}-0.parquet", "default/{}/0000.parquet"])
def test_a_clone_of_a_hugging_face_repository_is_read(clone, tmp_path, folder):
    for file in (".git/HEAD", "README.md"):
        (tmp_path / "hub" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "hub" / file).write_text("about")
    for split, count in (("train", 12), ("test", 4)):
        images = np.random.default_rng(count).integers(0, 256, (count, 4, 4), np.uint8)
        table = pyarrow.table({"image": images.tolist(), "label": [at % 2 for at in range(count)]})
        path = tmp_path / "hub" / folder.format(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(table, path)
    arrays = clone.added(tmp_path / "hub")
    assert (len(arrays["train_labels"]), len(arrays["test_labels"])) == (12, 4)
