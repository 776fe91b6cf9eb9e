import dataclasses

import numpy as np
import pytest

from pipeline.artifacts.processed import (
    SCALE,
    Count,
    Dataset,
    read_dataset,
    read_split,
    refuse_damaged_splits,
    scaled,
    write_dataset,
    write_split,
)
from pipeline.artifacts.workspace import Workspace, sha256
from pipeline.errors import PipelineError

DATASET = Dataset(
    name="pets",
    classes=("Katze", "Hündin"),
    image_shape=(3, 2),
    reader={"image_size": [3, 2], "colour": "grey"},
    scale=SCALE,
    counts={"train": Count(3, (1, 2))},
    mean=0.1,
    std=0.2,
    duplicates={"train": 0},
    sha256={"train": {"images": "0", "labels": "1"}},
)
IMAGES = np.arange(18, dtype=np.uint8).reshape(3, 6)
LABELS = np.array([0, 1, 1], np.int32)


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def test_a_dataset_is_read_as_it_was_written(workspace):
    write_dataset(workspace, DATASET)
    assert read_dataset(workspace) == DATASET
    # People read it, too.
    assert '\n  "name": "pets",\n' in workspace.dataset.read_text()
    assert '"Hündin"' in workspace.dataset.read_text()


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"counts": {}}', '{"counts": 1}'])
def test_a_missing_or_damaged_dataset_is_refused(workspace, text):
    if text is not None:
        workspace.dataset.parent.mkdir(parents=True)
        workspace.dataset.write_text(text)
    with pytest.raises(PipelineError, match="missing or damaged"):
        read_dataset(workspace)


def test_a_split_written_in_pieces_is_memory_mapped_unchanged(workspace):
    digests = write_split(workspace, "train", iter([IMAGES[:1], IMAGES[1:]]), (3, 6), LABELS)
    images, labels = read_split(workspace, "train")
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    assert digests == {
        name: sha256(workspace.processed / "train" / f"{name}.npy") for name in ("images", "labels")
    }


def test_the_files_are_those_that_numpy_writes(workspace, tmp_path):
    write_split(workspace, "train", iter([IMAGES]), (3, 6), LABELS)
    np.save(tmp_path / "images.npy", IMAGES)
    assert sha256(workspace.processed / "train" / "images.npy") == sha256(tmp_path / "images.npy")


def test_an_empty_split_is_read(workspace):
    write_split(workspace, "validation", iter([]), (0, 6), LABELS[:0])
    images, labels = read_split(workspace, "validation")
    assert (images.shape, labels.shape) == ((0, 6), (0,))


def test_a_failed_write_leaves_the_old_split_intact(workspace):
    def failing():
        yield IMAGES[:1]
        raise OSError(28, "No space left on device")

    write_split(workspace, "train", iter([IMAGES]), (3, 6), LABELS)
    with pytest.raises(OSError, match="No space left"):
        write_split(workspace, "train", failing(), (3, 6), LABELS)
    np.testing.assert_array_equal(read_split(workspace, "train")[0], IMAGES)
    assert [path.name for path in workspace.processed.iterdir()] == ["train"]


def test_a_missing_or_truncated_split_is_refused(workspace):
    with pytest.raises(PipelineError, match="missing or damaged"):
        read_split(workspace, "train")
    write_split(workspace, "train", iter([IMAGES]), (3, 6), LABELS)
    path = workspace.processed / "train" / "images.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PipelineError, match="missing or damaged"):
        read_split(workspace, "train")


def test_scaled_pixels_are_float32_from_zero_to_one():
    levels = scaled(np.arange(256, dtype=np.uint8))
    assert levels.dtype == np.float32
    assert (levels[0], levels[255]) == (0, 1)
    np.testing.assert_allclose(levels, np.arange(256) / 255, rtol=1e-6)


def test_a_split_whose_files_are_not_those_of_the_dataset_is_refused(workspace):
    digests = {
        split: write_split(workspace, split, iter([IMAGES]), (3, 6), LABELS) for split in ("train", "test")
    }
    dataset = dataclasses.replace(DATASET, sha256=digests)
    refuse_damaged_splits(workspace, dataset, "train", "test")
    labels = workspace.processed / "test" / "labels.npy"
    labels.chmod(0o644)
    labels.write_bytes(labels.read_bytes()[:-1] + b"x")
    refuse_damaged_splits(workspace, dataset, "train")
    with pytest.raises(PipelineError, match=r"labels\.npy is damaged"):
        refuse_damaged_splits(workspace, dataset, "train", "test")
