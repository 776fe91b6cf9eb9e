import csv
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.metrics import log_loss

from pipeline.artifacts import model_file
from pipeline.artifacts.processed import read_split
from pipeline.artifacts.workspace import RAW_ARRAYS, Workspace
from pipeline.config.compose import compose
from pipeline.config.params import view
from pipeline.errors import PipelineError
from pipeline.models import inference_model
from pipeline.stages import evaluate, preprocess

CONF = Path(__file__).parents[2] / "conf"
HISTORY = (
    "epoch,train_loss,train_accuracy,val_loss,val_accuracy,learning_rate,best\n"
    "1,0.5,0.8,0.4,0.85,0.001,0\n2,0.3,0.9,0.3,0.91,0.001,1\n3,0.2,0.95,0.35,0.9,0.001,0\n"
)
TEST_IMAGES = 2300  # Two batches and a rest.


@pytest.fixture(scope="module")
def config():
    classes = "data.classes=[zero,one,two]"
    return compose(CONF, ["data.name=stripes", classes, "evaluate.worst_mistakes=3"])


@pytest.fixture(scope="module")
def prepared(config, tmp_path_factory) -> Path:
    """A workspace with data, a model and a history."""
    workspace = Workspace(tmp_path_factory.mktemp("prepared"))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300 + TEST_IMAGES, 4, 5), dtype=np.uint8)
    labels = images.reshape(-1, 20)[:, :3].argmax(axis=1).astype(np.int32)
    workspace.raw.mkdir(parents=True)
    for name, array in zip(RAW_ARRAYS, (images[:300], labels[:300], images[300:], labels[300:]), strict=True):
        np.save(workspace.raw / f"{name}.npy", array)
    preprocess.run(config, workspace)
    model_file.save(inference_model(network(), (4, 5)), workspace.model)
    workspace.history.write_text(HISTORY)
    return workspace.root


def network(weight=4.0, classes=3, pixels=20):
    """A model that takes the brightest of the first pixels for the class, which nearly is the truth."""
    logits = keras.layers.Dense(classes)
    model = keras.Sequential([keras.Input((pixels,)), logits])
    kernel = weight * np.eye(pixels, classes)
    kernel[:, 1] *= 0.9
    logits.set_weights([kernel, np.zeros(classes)])
    return model


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path) -> Workspace:
    return Workspace(Path(shutil.copytree(prepared, tmp_path / "workspace")))


@pytest.fixture(scope="module")
def evaluated(config, prepared: Path) -> Workspace:
    """The same, evaluated; to be looked at only."""
    workspace = Workspace(Path(shutil.copytree(prepared, prepared.with_name("evaluated"))))
    run(config, workspace)
    return workspace


def run(config, workspace):
    evaluate.run(view(config, ["evaluate", "train.threads"]), workspace)


def test_what_is_written_is_consistent(evaluated):
    workspace = evaluated
    metrics = json.loads(workspace.metrics.read_text())
    _, labels = read_split(workspace, "test")
    saved = np.load(workspace.probabilities)
    with workspace.predictions.open(newline="") as file:
        table = list(csv.DictReader(file))
    names = ("zero", "one", "two")

    assert saved.dtype == np.float32
    assert saved.shape == (TEST_IMAGES, 3)
    assert metrics["images"] == len(table) == TEST_IMAGES
    assert metrics["errors"] == sum(row["correct"] == "0" for row in table) > 0
    assert metrics["accuracy"] == pytest.approx(1 - metrics["errors"] / TEST_IMAGES)
    assert metrics["accuracy_low"] < metrics["accuracy"] < metrics["accuracy_high"]
    exact = saved.astype(np.float64)
    assert metrics["nll"] == log_loss(labels, exact / exact.sum(axis=1, keepdims=True))
    assert [row["label"] for row in table] == [names[label] for label in labels]
    assert [row["predicted"] for row in table] == [names[best] for best in saved.argmax(axis=1)]
    assert [float(row["confidence"]) for row in table] == pytest.approx(saved.max(axis=1), abs=1e-6)
    assert sum(metrics["per_class"][name]["support"] for name in names) == TEST_IMAGES
    assert {path.suffix for path in workspace.figures.iterdir()} == {".png"}
    assert metrics["weights_sha256"] == model_file.weights_digest(model_file.load(workspace.model))


def test_the_gap_is_to_the_epoch_whose_weights_were_kept(evaluated):
    metrics = json.loads(evaluated.metrics.read_text())
    assert metrics["train_accuracy"] == 0.9
    assert metrics["generalisation_gap"] == 0.9 - metrics["accuracy"]


def test_evaluating_again_writes_the_same_bytes_and_removes_what_is_stale(
    config, workspace, evaluated, capsys
):
    workspace.figures.mkdir(parents=True)
    (workspace.figures / "stale.png").touch()
    run(config, workspace)
    assert reports(workspace) == reports(evaluated)
    assert "NLL" in capsys.readouterr().out


def reports(workspace):
    root = workspace.metrics.parent
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_an_image_gets_the_same_scores_in_whatever_company(evaluated):
    saved = np.load(evaluated.probabilities)
    images, _ = read_split(evaluated, "test")
    alone = model_file.load(evaluated.model).predict_on_batch(images[2:3].reshape(1, 4, 5))
    assert alone[0] == pytest.approx(saved[2], rel=1e-5)


def with_settings(config, **settings):
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update=settings)})


def test_with_shifts_the_scores_are_the_mean_over_the_image_and_its_eight_neighbours(config, workspace):
    run(with_settings(config, shifts=1), workspace)
    images, _ = read_split(workspace, "test")
    model, image = model_file.load(workspace.model), images[7].reshape(4, 5)
    framed = np.zeros((6, 7), np.uint8)
    framed[1:-1, 1:-1] = image
    moved = np.stack([framed[top : top + 4, left : left + 5] for top in range(3) for left in range(3)])
    expected = model.predict_on_batch(moved).mean(axis=0)
    assert np.load(workspace.probabilities)[7] == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(model.predict_on_batch(image[None])[0], rel=1e-2)


def test_doubtful_labels_are_listed_and_shown_if_asked_for(config, workspace):
    folder = workspace.processed / "test"
    labels = np.load(folder / "labels.npy")
    scores = model_file.load(workspace.model).predict_on_batch(
        read_split(workspace, "test")[0].reshape(-1, 4, 5)
    )
    surest = scores.max(axis=1).argsort()[-3:]
    labels[surest] = (scores[surest].argmax(axis=1) + 1) % 3
    np.save(folder / "labels.npy", labels)
    run(with_settings(config, doubtful_labels=2), workspace)
    with (workspace.figures / "doubtful_labels.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 2
    assert {int(row["index"]) for row in table} < set(surest)
    assert all(row["label"] != row["suggested"] and float(row["probability"]) < 0.1 for row in table)
    assert (workspace.figures / "doubtful_labels.png").exists()


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (lambda: inference_model(network(classes=4), (4, 5)), r"\(4,\).* in 3 classes"),
        (lambda: inference_model(network(pixels=25), (5, 5)), r"\(5, 5\).*shape \(4, 5\)"),
        (lambda: inference_model(network(weight=np.nan), (4, 5)), "2,300 of 2,300 .* no probabilities"),
        (lambda: scores_that_do_not_sum_to_one(), "no probabilities"),
    ],
    ids=["classes", "shape", "diverged", "no-distribution"],
)
def test_a_model_that_does_not_fit_is_refused_and_nothing_is_written(config, workspace, model, complaint):
    model_file.save(model(), workspace.model)
    with pytest.raises(PipelineError, match=complaint):
        run(config, workspace)
    assert not workspace.metrics.parent.exists()


def scores_that_do_not_sum_to_one():
    images = keras.Input((4, 5), dtype="uint8")
    pixels = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    return keras.Model(images, keras.layers.Dense(3, activation="sigmoid")(pixels))


@pytest.mark.parametrize("missing", ["model", "history", "dataset"])
def test_what_is_missing_is_named(config, workspace, missing):
    path = getattr(workspace, missing)
    path.unlink()
    with pytest.raises(PipelineError, match=path.name):
        run(config, workspace)
