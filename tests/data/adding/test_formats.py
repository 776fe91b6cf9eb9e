"""Each format, in files as they are usually published, gives exactly the original arrays."""

import bz2
import csv
import functools
import gzip
import http.server
import io
import json
import lzma
import shutil
import struct
import tarfile
import threading
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from pictures import save
from scipy.io import savemat
from sklearn.datasets import load_digits

from photos import png
from pipeline.errors import PipelineError

TRAIN, TEST = slice(0, 300), slice(300, 360)


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    return np.rint(found.images * (255 / 16)).astype(np.uint8), found.target.astype(np.uint8)


def assert_direct(arrays, labels_from=0) -> None:
    """Return the original digits; the first 300 are for training."""
    images, labels = digits()
    for split, part in (("train", TRAIN), ("test", TEST)):
        np.testing.assert_array_equal(arrays[f"{split}_images"], images[part])
        np.testing.assert_array_equal(arrays[f"{split}_labels"], labels[part])


def kaggle(part: slice, first: str = "pixel0") -> list[list]:
    images, labels = digits()
    start = int(first.removeprefix("pixel"))
    header = ["label", *(f"pixel{start + at}" for at in range(64))]
    rows = zip(labels[part].tolist(), images[part].reshape(-1, 64).tolist(), strict=True)
    return [header, *([label, *pixels] for label, pixels in rows)]


def text(rows, end="\n", quoting=csv.QUOTE_MINIMAL) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=end, quoting=quoting).writerows(rows)
    return file.getvalue().encode()


# --- csv --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["plain", "gzip", "bom and crlf", "quoted"])
def test_csv_as_on_kaggle(clone, tmp_path, form):
    folder = tmp_path / "fashion"
    folder.mkdir()
    for name, part in (("fashion-mnist_train.csv", TRAIN), ("fashion-mnist_test.csv", TEST)):
        rows = kaggle(part, "pixel1")
        content = {
            "plain": lambda rows: text(rows),
            "gzip": lambda rows: gzip.compress(text(rows)),
            "bom and crlf": lambda rows: b"\xef\xbb\xbf" + text(rows, "\r\n"),
            "quoted": lambda rows: text(rows, quoting=csv.QUOTE_ALL),
        }[form](rows)
        (folder / (f"{name}.gz" if form == "gzip" else name)).write_bytes(content)
    assert_direct(clone.added(folder))


def test_kaggles_test_file_without_labels_is_skipped_and_named(clone, tmp_path):
    (tmp_path / "recogniser").mkdir()
    (tmp_path / "recogniser" / "train.csv").write_bytes(text(kaggle(TRAIN)))
    (tmp_path / "recogniser" / "test.csv").write_bytes(text([row[1:] for row in kaggle(TEST)]))
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
    (tmp_path / "floats.csv").write_bytes(text(rows))
    assert_direct(clone.added(tmp_path / "floats.csv"))


def test_csv_of_file_names(clone, tmp_path):
    rows = [["filename", "class"]]
    for number in range(20):
        save(tmp_path / "listed" / "images" / f"{number}.png", number)
        rows.append([f"images/{number}.png", "ab"[number % 2]])
    (tmp_path / "listed" / "all.csv").write_bytes(text(rows))
    arrays = clone.added(tmp_path / "listed" / "all.csv")
    assert clone.conf("mine")["classes"] == ["a", "b"]
    assert len(arrays["train_labels"]) == 16
    (tmp_path / "listed" / "all.csv").write_bytes(text([*rows, ["../../secret.png", "a"]]))
    with pytest.raises(PipelineError, match="is outside of the table's folder: refused"):
        clone.add(tmp_path / "listed" / "all.csv", name="other")


@pytest.mark.parametrize("label", [1, 0.5, True, "no"])
def test_the_only_other_column_of_a_table_of_files_is_the_label(clone, tmp_path, label):
    rows = [["id", "filename", "breed"]]
    for number in range(20):
        save(tmp_path / "listed" / f"{number}.png", number)
        rows.append([number, f"{number}.png", label if number % 2 else "x"])
    (tmp_path / "listed" / "all.csv").write_bytes(text(rows))
    clone.add(tmp_path / "listed" / "all.csv", name="mine")
    assert clone.conf("mine")["classes"] == sorted([str(label), "x"])
    with_more = [[*row, "y"] for row in rows]
    (tmp_path / "listed" / "all.csv").write_bytes(text(with_more))
    with pytest.raises(PipelineError, match=r"no label column: .*breed.*--set label_column"):
        clone.add(tmp_path / "listed" / "all.csv")
    clone.add(tmp_path / "listed" / "all.csv", name="other", settings=("label_column=breed",))
    assert clone.conf("other")["classes"] == sorted([str(label), "x"])
    assert clone.conf("other")["sources"][0]["label_column"] == "breed"


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "id"])
def test_the_row_numbers_of_a_csv_are_not_pixels(clone, tmp_path, name):
    rows = kaggle(slice(0, 360))
    numbered = [[name, *rows[0], "split"]]
    numbered += [[at, *row, "train" if at < 300 else "test"] for at, row in enumerate(rows[1:])]
    (tmp_path / "numbered.csv").write_bytes(text(numbered))
    assert_direct(clone.added(tmp_path / "numbered.csv"))


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
    (tmp_path / "bad.csv").write_bytes(text(change(kaggle(TRAIN))))
    with pytest.raises(PipelineError, match=reason):
        clone.add(tmp_path / "bad.csv")
    assert not (clone.workspace.root / "conf" / "data" / "bad.yaml").exists()


# --- npz and npy ------------------------------------------------------------------------------------


def halves() -> dict[str, np.ndarray]:
    images, labels = digits()
    return {
        "x_train": images[TRAIN],
        "y_train": labels[TRAIN],
        "x_test": images[TEST],
        "y_test": labels[TEST],
    }


def test_npz_as_keras_has_it(clone, tmp_path):
    np.savez_compressed(tmp_path / "keras.npz", **halves())
    assert_direct(clone.added(tmp_path / "keras.npz"))


def test_npz_as_medmnist_has_it_with_its_validation_images(clone, tmp_path):
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
    assert_direct(clone.added(tmp_path / "medmnist.npz"))
    assert clone.conf("mine")["validation_images"] == 50


def test_npz_of_floats_of_one_channel_and_one_hot_labels(clone, tmp_path):
    floats = {
        name: (array[..., None] / 255).astype(np.float32) if name[0] == "x" else np.eye(10)[array]
        for name, array in halves().items()
    }
    np.savez(tmp_path / "floats.npz", **floats)
    assert_direct(clone.added(tmp_path / "floats.npz"))


def test_one_array_per_file_as_kmnist_has_it(clone, tmp_path):
    (tmp_path / "kmnist").mkdir()
    for name, array in halves().items():
        kind, split = name.split("_")
        np.savez(tmp_path / "kmnist" / f"kmnist-{split}-{'imgs' if kind == 'x' else 'labels'}.npz", array)
    assert_direct(clone.added(tmp_path / "kmnist"))


def test_npy_files_by_names_that_conf_gives(clone, tmp_path):
    (tmp_path / "odd").mkdir()
    for name, array in halves().items():
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
    assert_direct(clone.added(tmp_path / "odd", settings=(f"arrays={names}",)))


def test_a_folder_may_hold_one_npz_of_all_arrays(clone, tmp_path):
    (tmp_path / "medmnist").mkdir()
    np.savez(tmp_path / "medmnist" / "digits.npz", **halves())
    assert_direct(clone.added(tmp_path / "medmnist"))


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
    np.savez(tmp_path / "digits.npz", **halves())
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
    ],
)
def test_an_npz_that_holds_no_images_is_refused(clone, tmp_path, change, reason):
    np.savez(tmp_path / "bad.npz", **(halves() | change))
    with pytest.raises(PipelineError, match=reason):
        clone.add(tmp_path / "bad.npz")


# --- parquet ----------------------------------------------------------------------------------------


def hugging_face(part: slice, **changes) -> pyarrow.Table:
    images, labels = digits()
    rows = [{"bytes": png(image), "path": f"{at}.png"} for at, image in enumerate(images[part])]
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    table = pyarrow.table({"image": rows, "label": labels[part].astype(np.int64)} | changes)
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def test_parquet_as_hugging_face_has_it_in_several_files(clone, tmp_path):
    folder = tmp_path / "hf" / "data"
    folder.mkdir(parents=True)
    for name, part in (
        ("train-00000-of-00002", slice(0, 200)),
        ("train-00001-of-00002", slice(200, 300)),
        ("test-00000-of-00001", TEST),
    ):
        pyarrow.parquet.write_table(hugging_face(part), folder / f"{name}.parquet")
    assert_direct(clone.added(tmp_path / "hf"))
    assert clone.conf("mine")["classes"][:3] == ["zero", "one", "two"]


def test_parquet_of_lists_of_pixels(clone, tmp_path):
    images, labels = digits()
    (tmp_path / "lists").mkdir()
    for name, part in (("train", TRAIN), ("test", TEST)):
        table = pyarrow.table({"label": labels[part], "image": images[part].tolist()})
        pyarrow.parquet.write_table(table, tmp_path / "lists" / f"{name}.parquet")
    assert_direct(clone.added(tmp_path / "lists"))


def test_parquet_with_missing_bytes_is_skipped_or_refused_by_row(clone, tmp_path):
    images, _ = digits()
    rows = [{"bytes": png(image), "path": None} for image in images[TRAIN]]
    rows[7]["bytes"] = None
    pyarrow.parquet.write_table(hugging_face(TRAIN, image=rows), tmp_path / "gap.parquet")
    lines = clone.add(tmp_path / "gap.parquet", name="mine")
    assert "  gap.parquet row 8 is empty" in lines
    for content, reason in (
        ((tmp_path / "gap.parquet").read_bytes()[:-100] + b"PAR1", "is not a complete Parquet file"),
        (b"PAR1" + bytes(50), "is not a complete Parquet file"),
    ):
        (tmp_path / "bad.parquet").write_bytes(content)
        with pytest.raises(PipelineError, match=reason):
            clone.add(tmp_path / "bad.parquet")


# --- idx and mat ------------------------------------------------------------------------------------


def idx_file(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("first", [0, 1])
def test_idx_as_emnist_has_it_transposed_and_with_labels_from_one(clone, tmp_path, first):
    images, labels = digits()
    (tmp_path / "emnist").mkdir()
    for split, part in (("train", TRAIN), ("test", TEST)):
        turned = np.ascontiguousarray(images[part].swapaxes(1, 2))
        for name, array in (("images-idx3", turned), ("labels-idx1", labels[part] + np.uint8(first))):
            path = tmp_path / "emnist" / f"emnist-letters-{split}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(idx_file(array)))
    assert_direct(clone.added(tmp_path / "emnist"))
    conf = clone.conf("mine")
    assert conf["sources"][0]["transpose"]
    assert conf["sources"][0]["labels"] == [str(first + digit) for digit in range(10)]


def test_classes_may_be_renamed_where_the_source_has_numbers(clone, tmp_path):
    np.savez(tmp_path / "keras.npz", **halves())
    clone.add(tmp_path / "keras.npz", name="mine")
    path = clone.workspace.root / "conf" / "data" / "mine.yaml"
    path.write_text(path.read_text().replace('"3"', '"three"', 1))
    assert_direct(clone.fetch("mine"))
    clone.add(tmp_path / "keras.npz", name="mine", update=True)
    assert clone.conf("mine")["classes"][2:5] == ["2", "three", "4"]
    assert_direct(clone.fetch("mine"))


def test_mat_as_svhn_has_it(clone, tmp_path):
    images, labels = digits()
    (tmp_path / "svhn").mkdir()
    for split, part in (("train", TRAIN), ("test", TEST)):
        colour = np.repeat(images[part][..., None], 3, axis=3)
        numbers = np.where(labels[part] == 0, 10, labels[part]).reshape(-1, 1)
        savemat(tmp_path / "svhn" / f"{split}_32x32.mat", {"X": np.moveaxis(colour, 0, -1), "y": numbers})
    arrays = clone.added(tmp_path / "svhn")
    assert arrays["train_images"].shape == (300, 8, 8, 3)
    assert_direct({name: array[..., 0] if array.ndim == 4 else array for name, array in arrays.items()})


def test_mat_as_emnist_has_it(clone, tmp_path):
    images, labels = digits()

    def part(of: slice) -> dict:
        columns = images[of].swapaxes(1, 2).reshape(-1, 64)
        return {"images": columns, "labels": labels[of].reshape(-1, 1).astype(float)}

    mapping = np.array([[digit, 48 + digit] for digit in range(10)], np.uint8)
    dataset = {"train": part(TRAIN), "test": part(TEST), "mapping": mapping}
    savemat(tmp_path / "emnist-digits.mat", {"dataset": dataset}, do_compression=True)
    assert_direct(clone.added(tmp_path / "emnist-digits.mat"))


@pytest.mark.parametrize("content", [b"MATLAB 5.0 MAT-file" + bytes(200), b"MATLAB"])
def test_a_damaged_mat_file_is_refused(clone, tmp_path, content):
    (tmp_path / "bad.mat").write_bytes(content)
    with pytest.raises(PipelineError, match=r"bad\.mat"):
        clone.add(tmp_path / "bad.mat")


# --- archives ---------------------------------------------------------------------------------------


def archived(pets, path, members=None, **options) -> None:
    files = sorted(pets.rglob("*.png"), reverse=True) if members is None else members
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, f"wrapped/{file.relative_to(pets)}")
        return
    with tarfile.open(path, options.get("mode", "w")) as archive:
        for file in files:
            archive.add(file, f"wrapped/{file.relative_to(pets)}")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_an_archive_gives_what_its_folder_gives(clone, pets, tmp_path, name):
    clone.add(pets)
    mode = {"gz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}.get(name.rpartition(".")[2], "w")
    archived(pets, tmp_path / name, mode=mode)
    clone.add(tmp_path / name, name="mine")
    assert clone.conf("mine")["sha256"] == clone.conf("pets")["sha256"]
    clone.fetch("mine")


@pytest.mark.parametrize("name", ["pets", "pets.zip"])
def test_the_progress_says_how_many_there_are(clone, pets, tmp_path, name, capsys):
    shutil.make_archive(str(tmp_path / "pets"), "zip", pets)
    (pets / ".hidden.png").touch()
    path = pets if name == "pets" else tmp_path / name
    clone.add(path, name="mine")
    assert f"Reading {path} 30 of 30" in capsys.readouterr().out
    clone.fetch("mine")
    assert f"Reading {path} 30 of 30" in capsys.readouterr().out


def test_the_order_of_the_members_means_nothing(clone, tmp_path):
    pictures = {
        f"{label}/{number}.png": png(np.full((4, 4), 20 * label + number, np.uint8))
        for label in (1, 2)
        for number in range(9)
    }
    found = []
    for number, names in enumerate((sorted(pictures), sorted(pictures, reverse=True))):
        (tmp_path / f"{number}.zip").write_bytes(zipped(**{name: pictures[name] for name in names}))
        clone.add(tmp_path / f"{number}.zip", name=f"mine{number}")
        found.append(clone.conf(f"mine{number}")["sha256"])
    assert found[0] == found[1]


def test_an_archive_at_an_address_is_downloaded(clone, pets, tmp_path, monkeypatch):
    archived(pets, tmp_path / "served.zip")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        clone.add(f"http://127.0.0.1:{server.server_port}/served.zip", name="mine")
        assert len(clone.fetch("mine")["train_labels"]) == 24
        server.shutdown()


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


PICTURE = png(np.zeros((4, 4), np.uint8))
BOMB = PICTURE[:40] + bytes(300_000_000)


def encrypted() -> bytes:
    content = bytearray(zipped(**{"a/1.png": PICTURE}))
    content[6] |= 1
    central = content.index(b"PK\x01\x02")
    content[central + 8] |= 1
    return bytes(content)


def with_a_name_that_is_no_text() -> bytes:
    return zipped(**{"ä/1.png": PICTURE}).replace("ä".encode(), b"\xff\xff")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (with_a_name_that_is_no_text, "a name in its table of contents is not UTF-8"),
        (lambda: zipped(**{"../x.png": PICTURE}), "outside of the archive: refused"),
        (lambda: zipped(**{"/x.png": PICTURE}), "outside of the archive: refused"),
        (lambda: zipped(**{"a\\..\\..\\x.png": PICTURE}), "outside of the archive: refused"),
        (encrypted, "is encrypted"),
        (
            lambda: zipped(**{"a/1.png": PICTURE, "b/2.png": PICTURE})[:-30],
            r"its name ends in \.zip, but it is damaged",
        ),
        (lambda: zipped(**{"a/inner.zip": zipped(**{"a/1.png": PICTURE})}), "has no PNG, .* pictures"),
        (lambda: zipped(**{"a/1.png": BOMB, "b/1.png": BOMB}), "unpacks to more than 268,435,456 bytes"),
        (lambda: lzma.compress(b"no tar"), "can't be read as images"),
        (lambda: bz2.compress(b"no tar"), "can't be read as images"),
        (lambda: b"\x28\xb5\x2f\xfd" + bytes(99), "compressed with zstd, which needs Python 3.14"),
    ],
)
def test_an_archive_that_is_unsafe_or_damaged_is_refused(clone, tmp_path, content, reason):
    (tmp_path / "bad.zip").write_bytes(content())
    with pytest.raises(PipelineError, match=reason):
        clone.add(tmp_path / "bad.zip", name="mine")
    assert not (tmp_path / "x.png").exists()
    assert not (clone.workspace.root / "conf" / "data" / "mine.yaml").exists()


@pytest.mark.parametrize("damage", ["cut between members", "cut in a header", "a bit flipped in a header"])
def test_a_tar_whose_rest_is_lost_is_refused(clone, pets, tmp_path, damage):
    archived(pets, tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        header = archive.getmembers()[-2].offset
    content = bytearray((tmp_path / "a.tar").read_bytes())
    if damage == "cut between members":
        del content[header:]
    elif damage == "cut in a header":
        del content[header + 100 :]
    else:
        content[header + 3] ^= 1
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(PipelineError, match=f"not a complete zip or tar archive: .* after {header:,} bytes"):
        clone.add(tmp_path / "a.tar", name="mine")
    assert not (clone.workspace.root / "conf" / "data" / "mine.yaml").exists()


def test_links_in_a_tar_are_skipped_and_named(clone, pets, tmp_path):
    archived(pets, tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar", "a") as archive:
        for name, kind in (("soft", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(f"wrapped/cat/{name}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    lines = clone.add(tmp_path / "a.tar", name="mine")
    assert "  wrapped/cat/soft.png is a link" in lines
    assert "  wrapped/cat/hard.png is a link" in lines
    assert "  wrapped/cat/pipe.png is a device" in lines
