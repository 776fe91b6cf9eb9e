import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from pipeline.artifacts.history import read_history
from pipeline.artifacts.model_file import load, weights_digest
from pipeline.artifacts.workspace import Workspace, sha256
from pipeline.config.compose import compose
from pipeline.config.params import dump, view
from pipeline.environment import use_threads
from pipeline.errors import PipelineError
from pipeline.stages import fetch, preprocess, train
from pipeline.stages.__main__ import run as run_stage

use_threads(1)

REPOSITORY = Path(__file__).parents[2]


def config(*overrides):
    composed = compose(
        REPOSITORY / "conf", ["experiment=smoke", "train.epochs=3", "train.xla=false", *overrides]
    )
    return view(composed, ["seed", "model", "train", "modules.model", "modules.backend"])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("digits"))
    composed = compose(REPOSITORY / "conf", ["experiment=smoke"])
    fetch.run(composed, workspace)
    preprocess.run(composed, workspace)
    # Training never reads the images that it will be evaluated on.
    shutil.rmtree(workspace.processed / "test")
    return workspace


@pytest.fixture
def workspace(digits, tmp_path):
    shutil.copytree(digits.root, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path)


def outputs(workspace):
    return {path.name: sha256(path) for path in (workspace.root / "models").iterdir()}


def test_train_writes_the_model_and_the_history_of_its_epochs(workspace):
    result = train.run(config(), workspace)
    assert set(outputs(workspace)) == {"model.keras", "model.onnx", "history.csv"}
    rows = list(csv.DictReader(workspace.history.open()))
    assert [(row["epoch"], row["best"]) for row in rows] == [("1", "0"), ("2", "0"), ("3", "1")]
    assert {float(row["learning_rate"]) for row in rows} == {0.001}
    assert read_history(workspace.history).best_epoch == result.best_epoch == 3
    assert result.epochs == 3
    assert result.cpu_seconds > 0
    assert result.parameters == 64 * 32 + 32 + 32 * 10 + 10

    model = load(workspace.model)
    assert weights_digest(model) == result.weights_sha256
    labels = np.load(workspace.processed / "validation" / "labels.npy")
    images = np.load(workspace.processed / "validation" / "images.npy").reshape(-1, 8, 8)
    rows = model.predict_on_batch(images)
    best = read_history(workspace.history).best
    assert result.val_macro_f1 == pytest.approx(f1_score(labels, rows.argmax(axis=1), average="macro"))
    # What is served is what was trained.
    assert (rows.argmax(axis=1) == labels).mean() == pytest.approx(best.val_accuracy)
    assert -np.log(rows[np.arange(len(labels)), labels]).mean() == pytest.approx(best.val_loss, rel=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_same_config_gives_the_same_bytes(workspace, dropout):
    train.run(config(f"model.dropout={dropout}"), workspace)
    first = outputs(workspace)
    train.run(config("seed=7", f"model.dropout={dropout}"), workspace)
    for name in ("model.keras", "model.onnx"):
        assert outputs(workspace)[name] != first[name]
    train.run(config(f"model.dropout={dropout}"), workspace)
    assert outputs(workspace) == first


@pytest.mark.slow
def test_another_process_gives_the_same_bytes(workspace):
    train.run(config("model.dropout=0.3"), workspace)
    first = outputs(workspace)
    shutil.rmtree(workspace.root / "models")
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'tests/stages'); "
        "import test_train as here; "
        f"here.train.run(here.config('model.dropout=0.3'), here.Workspace(Path({str(workspace.root)!r})))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=REPOSITORY, capture_output=True)
    assert outputs(workspace) == first


def test_without_a_terminal_an_epoch_is_a_line(workspace, capsys):
    seen = []
    train.run(config(), workspace, seen.append)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "Training mlp with 2,410 parameters on 1,293 images, 144 for validation."
    assert [epoch.epoch for epoch in seen] == [1, 2, 3]
    for number, (line, epoch) in enumerate(zip(lines, seen, strict=True), start=1):
        assert line == (
            f"Epoch {number} of 3: loss {epoch.train_loss:.4f}, accuracy {100 * epoch.train_accuracy:.2f} %, "
            f"validation loss {epoch.val_loss:.4f}, accuracy {100 * epoch.val_accuracy:.2f} %"
        )


def test_a_training_that_diverges_writes_nothing_and_keeps_the_old_outputs(workspace):
    train.run(config("train.epochs=1"), workspace)
    before = outputs(workspace)
    deep = config("train.learning_rate=10", f"model.hidden_units={[30] * 25}".replace(" ", ""))
    with pytest.raises(PipelineError, match=r"diverged in epoch \d+ .*learning_rate \(now 10\.0\)"):
        train.run(deep, workspace)
    assert outputs(workspace) == before


@pytest.mark.parametrize("name", ["train/images.npy", "train/labels.npy", "validation/images.npy"])
def test_damaged_data_are_not_trained_on(workspace, name):
    path = workspace.processed / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=rf"{re.escape(str(path))} is damaged"):
        train.run(config(), workspace)
    assert not (workspace.root / "models").exists()


def test_missing_data_are_refused_by_name(tmp_path, workspace):
    with pytest.raises(PipelineError, match=r"training\.json is missing"):
        train.run(config(), Workspace(tmp_path / "empty"))
    shutil.rmtree(workspace.processed / "train")
    with pytest.raises(PipelineError, match=re.escape(str(workspace.processed / "train"))):
        train.run(config(), workspace)
    assert not (workspace.root / "models").exists()


def test_early_stopping_without_validation_images_is_refused_before_the_training(workspace):
    none = compose(REPOSITORY / "conf", ["experiment=smoke", "preprocess.validation_fraction=0"])
    preprocess.run(none, workspace)
    asked = compose(REPOSITORY / "conf", ["experiment=smoke", "train.early_stopping.patience=3"])
    workspace.params.write_text(dump(asked))
    shutil.copy(REPOSITORY / "dvc.yaml", workspace.dvc_yaml)
    workspace.dataset.unlink()  # The stage does not depend on it.
    with pytest.raises(PipelineError, match=r"needs validation images, and there are none.*patience=null"):
        run_stage("train", workspace)
