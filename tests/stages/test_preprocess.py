"""The stage preprocess writes what the raw arrays and the configuration say, or refuses them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from raw_arrays import CLASSES, config, save

from declared import REPOSITORY
from pipeline.artifacts.processed import read_dataset, read_split, scaled
from pipeline.artifacts.workspace import RAW_ARRAYS, SPLITS, Workspace, sha256
from pipeline.config.schema import RawDigests
from pipeline.config.section import ReaderSection
from pipeline.errors import PipelineError
from pipeline.stages import preprocess


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def flip(path: Path) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def outputs(workspace: Workspace) -> dict[str, str]:
    files = [path for path in workspace.processed.rglob("*") if path.is_file()]
    return {str(path.relative_to(workspace.processed)): sha256(path) for path in files}


def test_duplicates_are_dropped_from_the_training_images_only(workspace, capsys):
    raw = save(workspace)
    train, test = raw["train_images"], raw["test_images"]
    train[1] = train[2] = train[0]  # two copies
    train[31] = train[5]  # a validation image
    test[0] = test[1] = train[6]
    save(workspace, train_images=train, test_images=test)
    preprocess.run(config(duplicates="drop"), workspace)
    assert "Dropped 4 duplicates from the training images." in capsys.readouterr().out
    dataset = read_dataset(workspace)
    assert [dataset.counts[split].total for split in SPLITS] == [26, 10, 7]
    found = dataset.duplicates
    assert (found["train"], found["train+validation"], found["train+test"], found["test"]) == (0, 0, 0, 1)
    preprocess.run(config(), workspace)
    assert read_dataset(workspace).counts["train"].total == 30


def test_dataset_json_describes_the_arrays(workspace):
    raw = save(workspace)
    preprocess.run(config(), workspace)
    dataset = read_dataset(workspace)
    assert (dataset.name, dataset.classes, dataset.image_shape) == ("pets", CLASSES, (5, 4))
    assert dataset.counts["test"].per_class == (3, 2, 2)
    assert ReaderSection.model_validate(dataset.reader) == config().data.reader
    pixels = scaled(raw["train_images"][:30]).astype(np.float64)
    np.testing.assert_allclose((dataset.mean, dataset.std), (pixels.mean(), pixels.std()), rtol=1e-6)
    for split in SPLITS:
        for name in ("images", "labels"):
            file = workspace.processed / split / f"{name}.npy"
            assert dataset.sha256[split][name] == sha256(file)


def test_duplicates_are_counted_within_and_across_the_splits(workspace, capsys):
    raw = save(workspace)
    train, test = raw["train_images"], raw["test_images"]
    train[1] = train[2] = train[0]
    train[31] = train[0]
    test[0] = test[1] = train[5]
    test[2] = train[32]
    save(workspace, train_images=train, test_images=test)
    preprocess.run(config(), workspace)
    assert read_dataset(workspace).duplicates == {
        "train": 2,
        "validation": 0,
        "test": 1,
        "train+validation": 1,
        "train+test": 2,
        "validation+test": 1,
    }
    assert "2 in train, 1 in test, 1 in train+validation, 2 in train+test, 1 in validation+test" in (
        capsys.readouterr().out
    )


def test_findings_are_announced_where_they_will_be_found(workspace, tmp_path, capsys):
    train = save(workspace)["train_images"]
    train[1] = train[0]
    save(workspace, train_images=train)
    preprocess.run(config(), workspace)
    assert "Images to look at, listed in data/processed/findings.csv: " in capsys.readouterr().out
    trial = Workspace(tmp_path / ".pipeline" / "trials" / "1")
    shutil.copytree(workspace.raw, trial.raw)
    preprocess.run(config(), trial)  # its workspace is removed after it
    assert "listed in data/findings.csv of the run in MLflow: " in capsys.readouterr().out


def test_the_same_input_gives_the_same_bytes_in_pieces_of_any_size(workspace, monkeypatch):
    save(workspace)
    preprocess.run(config(), workspace)
    first = outputs(workspace)
    assert set(first) == {
        *(f"{split}/{name}.npy" for split in SPLITS for name in ("images", "labels")),
        *(f"figures/{name}.png" for name in ("balance", "near_duplicates", "outliers")),
        *("dataset.json", "training.json", "findings.csv", "samples.png"),
    }
    monkeypatch.setattr(preprocess, "_PIECE_BYTES", 7 * 20)
    preprocess.run(config(), workspace)
    assert outputs(workspace) == first


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b'{"train_names": 1}', b"\xff"])
def test_damaged_names_of_pictures_are_refused(workspace, content):
    save(workspace)
    (workspace.raw / "names.json").write_bytes(content)
    with pytest.raises(PipelineError, match=r"names\.json is damaged: delete it, and `dvc repro`"):
        preprocess.run(config(), workspace)


def test_new_test_images_change_nothing_that_training_depends_on(workspace):
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    inputs = [path for path in stages["train"]["deps"] if path.startswith("data/")]
    raw = save(workspace)
    preprocess.run(config(), workspace)
    before = outputs(workspace)
    # One is equal to a training image.
    save(workspace, test_images=raw["train_images"][:5], test_labels=raw["test_labels"][:5])
    preprocess.run(config(), workspace)
    after = outputs(workspace)
    changed = {f"data/processed/{name}" for name in before if after[name] != before[name]}
    assert {"data/processed/test/images.npy", "data/processed/dataset.json"} <= changed
    assert not [path for path in changed if path.startswith(tuple(inputs))]


def test_colour_images_are_flattened_and_described(workspace):
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (40, 5, 4, 3), dtype=np.uint8)
    save(workspace, train_images=colour, test_images=colour[:7])
    preprocess.run(config(colour="rgb"), workspace)
    assert read_dataset(workspace).image_shape == (5, 4, 3)
    np.testing.assert_array_equal(read_split(workspace, "train")[0], colour[:30].reshape(30, 60))


def test_a_class_without_a_training_image_is_named(workspace):
    save(workspace)
    with pytest.raises(PipelineError, match="no training image of the class 'emu'"):
        preprocess.run(config(classes=(*CLASSES, "emu")), workspace)
    assert not workspace.processed.exists()


def test_a_class_without_training_images_after_the_split_is_named(workspace):
    save(workspace, train_labels=np.sort(np.arange(40) % 3).astype(np.int32))
    with pytest.raises(PipelineError, match=r"the class 'owl' .*stratified"):
        preprocess.run(config(validation_fraction=0.5), workspace)
    preprocess.run(config(validation_fraction=0.5, validation_split="stratified"), workspace)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        (
            {"test_images": np.zeros((0, 5, 4), np.uint8), "test_labels": np.zeros(0, np.int32)},
            "test_images is empty",
        ),
        ({"train_labels": np.full(40, 3, np.int32)}, "train_labels has 3 at index 0"),
        ({"train_images": np.zeros((40, 5, 4))}, "train_images is float64"),
        ({"train_images": np.array([None])}, "train_images.npy contains Python objects"),
    ],
)
def test_raw_arrays_that_are_not_a_dataset_are_refused(workspace, arrays, reason):
    save(workspace, **arrays)
    with pytest.raises(PipelineError, match=f"data/raw is refused: {reason}"):
        preprocess.run(config(), workspace)
    assert not workspace.processed.exists()


def test_a_raw_array_that_is_not_the_pinned_one_is_refused_before_the_work(workspace):
    save(workspace)
    pins = RawDigests(**{name: sha256(workspace.raw / f"{name}.npy") for name in RAW_ARRAYS})
    pinned = config()
    pinned = pinned.model_copy(update={"data": pinned.data.model_copy(update={"sha256": pins})})
    preprocess.run(pinned, workspace)
    before = outputs(workspace)
    path = workspace.raw / "train_images.npy"
    flip(path)
    with pytest.raises(
        PipelineError, match=rf"train_images\.npy is damaged: .*\n  rm -f {re.escape(str(path))}$"
    ):
        preprocess.run(pinned, workspace)
    assert outputs(workspace) == before


def test_images_of_another_shape_than_the_reader_makes_are_refused(workspace):
    images = np.zeros((40, 5, 4, 3), np.uint8)
    save(workspace, train_images=images, test_images=images[:7])
    with pytest.raises(PipelineError, match=r"makes images of shape \(5, 4\): set image_size and colour"):
        preprocess.run(config(), workspace)


def test_missing_or_truncated_raw_arrays_are_refused(workspace):
    with pytest.raises(PipelineError, match=r"train_images\.npy is missing"):
        preprocess.run(config(), workspace)
    save(workspace)
    path = workspace.raw / "test_images.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PipelineError, match=r"test_images\.npy has 139 bytes"):
        preprocess.run(config(), workspace)


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from raw_arrays import config
from pipeline.artifacts.workspace import Workspace
from pipeline.stages import preprocess
preprocess.run(config(image_size=(28, 28)), Workspace(Path(sys.argv[2])))
[peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak.split()[1]) // 1024)
"""


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    peaks = []
    for count in (5_000, 80_000):  # 4 and 63 MB
        workspace = Workspace(tmp_path / str(count))
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 3).astype(np.int32)
        save(
            workspace,
            train_images=images,
            train_labels=labels,
            test_images=images[:9],
            test_labels=labels[:9],
        )
        command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(workspace.root)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 30
