"""Labels that are written as floats, as pandas does if a value in their column was missing."""

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from pictures import write

from photos import png
from pipeline.errors import PipelineError


def source_with(labels, kind: str, folder: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 4, 4), np.uint8)
    folder.mkdir(exist_ok=True)
    if kind == "npz":
        np.savez(folder / "all.npz", images=images, labels=np.array(labels))
        return folder / "all.npz"
    if kind == "parquet":
        table = pyarrow.table({"image": images.tolist(), "label": labels})
        pyarrow.parquet.write_table(table, folder / "all.parquet")
        return folder / "all.parquet"
    if kind == "pixels":
        rows = [[label, *image.ravel()] for label, image in zip(labels, images, strict=True)]
        return write(folder / "all.csv", [["label", *(f"pixel{at}" for at in range(16))], *rows])
    for number, image in enumerate(images):
        (folder / f"{number}.png").write_bytes(png(image))
    rows = [[f"{number}.png", label] for number, label in enumerate(labels)]
    name = "all.csv" if kind == "names" else "metadata.csv"
    table = write(folder / name, [["file_name", "label"], *rows])
    return table if kind == "names" else folder


KINDS = ["pixels", "names", "metadata", "parquet", "npz"]


@pytest.mark.parametrize("kind", KINDS)
def test_labels_that_are_whole_floats_become_integers(clone, tmp_path, kind):
    wanted = [at % 11 for at in range(66)]
    clone.add(source_with(wanted, kind, tmp_path / "whole"), name="whole")
    clone.add(source_with([float(label) for label in wanted], kind, tmp_path / "floats"), name="floats")
    assert clone.conf("floats")["classes"] == [str(label) for label in range(11)]
    assert clone.conf("floats")["sha256"] == clone.conf("whole")["sha256"]
    clone.fetch("floats")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("odd", [0.5, float("nan")])
def test_labels_that_are_fractions_are_refused(clone, tmp_path, kind, odd):
    labels = [float(at % 3) for at in range(30)]
    labels[7] = odd
    with pytest.raises(PipelineError, match=r"not all whole, such as (0\.5|nan)|must be whole"):
        clone.add(source_with(labels, kind, tmp_path / "odd"), name="mine")


def test_numbers_with_decimal_points_among_texts_are_texts(clone, tmp_path):
    clone.add(source_with(["1.0", "x"] * 10, "names", tmp_path / "mixed"), name="mine")
    assert clone.conf("mine")["classes"] == ["1.0", "x"]


@pytest.mark.parametrize("labels", [["0.0", "1.0", "10.0"] * 10, ["0.5", "1.5", "2.0"] * 10])
@pytest.mark.parametrize("kind", ["pixels", "names", "metadata"])
def test_float_labels_that_an_earlier_version_pinned_as_texts_are_still_read(clone, tmp_path, kind, labels):
    path = source_with(
        [{"0": "a", "1": "b", "2": "c"}[str(at % 3)] for at in range(30)], kind, tmp_path / "old"
    )
    clone.add(path, name="mine")
    source_with(labels, kind, tmp_path / "old")
    conf = clone.workspace.root / "conf" / "data" / "mine.yaml"
    conf.write_text(conf.read_text().replace('["a", "b", "c"]', str(labels[:3]).replace("'", '"')))
    assert clone.conf("mine")["classes"] == labels[:3]
    clone.fetch("mine")
    assert clone.add(path, name="mine")[-1] == "Everything is as pinned in conf/data/mine.yaml."
