"""What MLflow shows of a successful run."""

import shutil
import subprocess
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from harness import (
    BEST,
    client,
    config,
    curve,
    digests,
    epochs,
    evaluate,
    files,
    free_port,
    kept,
    lay_out,
    one_run,
    runs,
    train,
)

from pipeline.artifacts.onnx_file import load
from pipeline.artifacts.workspace import Workspace, sha256
from pipeline.config.messages import validate
from pipeline.config.schema import Config
from pipeline.config.section import leaves
from pipeline.tracking.record import Record
from pipeline.tracking.run import Projection
from pipeline.tracking.store import Store


def git(workspace, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", workspace.root, *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def shown(memory, model):
    """A workspace in a git repository with an uncommitted change, trained and evaluated; read-only."""
    workspace = Workspace(memory / "shown")
    lay_out(workspace, model)
    source = workspace.root / "source.py"
    source.write_text("committed = True\n")
    git(workspace, "init", "--initial-branch=topic")
    git(workspace, "add", "source.py")
    git(workspace, "commit", "--message=first")
    source.write_text("committed = False\n")
    (workspace.root / "src").mkdir(exist_ok=True)
    (workspace.root / "src" / "new.py").write_text("")
    train(config(), workspace)
    evaluate(config(), workspace)
    return workspace


def downloaded(workspace, run, path, folder):
    return Path(client(workspace).download_artifacts(run.info.run_id, path, str(folder)))


def logged_model(workspace, run):
    [output] = run.outputs.model_outputs
    return client(workspace).get_logged_model(output.model_id)


def test_train_and_evaluate_share_one_finished_run(shown):
    run = one_run(shown)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == f"smoke-{run.data.tags['pipeline.id'][:6]}"
    assert client(shown).get_experiment(run.info.experiment_id).name == "image-classifier"
    assert run.info.start_time <= run.info.end_time
    assert kept(shown) == []


def test_every_value_of_the_configuration_is_a_param_and_the_file_is_an_artifact(shown, tmp_path):
    run = one_run(shown)
    values = dict(leaves(config().model_dump(mode="json")))
    assert set(run.data.params) == set(values)
    assert run.data.params["train.learning_rate"] == str(values["train.learning_rate"])
    assert run.data.params["tracking.uri"] == "null"
    assert run.data.params["model.hidden_units"] == "[32]"
    text = downloaded(shown, run, "config/params.yaml", tmp_path).read_text()
    assert validate(yaml.safe_load(text), Config) == config()


@pytest.mark.parametrize("key", ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate"])
def test_each_epoch_is_one_point_of_each_curve(shown, key):
    expected = [(epoch.epoch, getattr(epoch, key)) for epoch in epochs()]
    assert curve(shown, one_run(shown), key) == expected


def test_the_results_are_metrics_and_artifacts(shown, tmp_path):
    run = one_run(shown)
    assert run.data.metrics["test_accuracy"] == 0.75
    assert run.data.metrics["generalisation_gap"] == 0.5
    for path, place in [
        (shown.metrics, "metrics.json"),
        (shown.predictions, "predictions.csv"),
        (shown.per_class, "per_class.csv"),
        (shown.label_issues, "label_issues.csv"),
        (shown.model_card, "model_card.md"),
        (shown.probabilities, "probabilities.npy"),
        (shown.run, "run.json"),
        (shown.history, "history.csv"),
        (shown.figures / "confusion.png", "figures/confusion.png"),
        (shown.samples, "data/samples.png"),
        (shown.findings, "data/findings.csv"),
        (shown.data_figures / "balance.png", "data/balance.png"),
    ]:
        assert downloaded(shown, run, place, tmp_path).read_bytes() == path.read_bytes()


def test_the_logged_model_takes_raw_images_and_gives_distributions(shown, images, tmp_path):
    run = one_run(shown)
    logged = logged_model(shown, run)
    assert (logged.status, logged.experiment_id) == ("READY", run.info.experiment_id)
    folder = Path(mlflow.artifacts.download_artifacts(logged.model_uri, dst_path=str(tmp_path)))
    assert (folder / "data" / "model.keras").read_bytes() == shown.model.read_bytes()
    assert (folder / "data" / "model.onnx").read_bytes() == shown.onnx.read_bytes()
    pinned = (folder / "requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in pinned} == {"mlflow", "numpy", "onnxruntime"}
    assert f"onnxruntime=={run.data.tags['package.onnxruntime']}" in pinned
    signature = mlflow.models.Model.load(str(folder)).signature
    [images_in], [scores_out] = signature.inputs.inputs, signature.outputs.inputs
    assert (images_in.type, images_in.shape) == (np.dtype("uint8"), (-1, 8, 8))
    assert (scores_out.type, scores_out.shape) == (np.dtype("float32"), (-1, 10))

    scores = mlflow.pyfunc.load_model(str(folder)).predict(images)
    assert scores.shape == (5, 10)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    assert np.ptp(scores) > 0.01
    np.testing.assert_array_equal(scores, load(shown.onnx).probabilities(images))
    restored = mlflow.keras.load_model(str(folder), load_model_kwargs={"safe_mode": True})
    np.testing.assert_allclose(restored.predict_on_batch(images), scores, rtol=1e-5)


def test_the_logged_model_has_the_metrics_of_the_epoch_whose_weights_it_has(shown):
    found = {metric.key: metric for metric in logged_model(shown, one_run(shown)).metrics}
    assert found["train_loss"].value == epochs()[BEST - 1].train_loss
    assert {found[key].step for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy")} == {BEST}


def test_the_data_are_inputs_with_the_digests_that_dataset_json_has_for_them(shown):
    inputs = {
        found.tags[0].value: (found.dataset.name, found.dataset.digest)
        for found in one_run(shown).inputs.dataset_inputs
    }
    assert inputs == {
        "training": ("digits-train", digests(shown)["train"][:36]),
        "validation": ("digits-validation", digests(shown)["validation"][:36]),
        "test": ("digits-test", digests(shown)["test"][:36]),
    }


def test_the_tags_say_where_the_run_comes_from(shown, tmp_path):
    run = one_run(shown)
    tags = run.data.tags
    assert tags["git.commit"] == tags["mlflow.source.git.commit"] == git(shown, "rev-parse", "HEAD")
    assert (tags["git.branch"], tags["git.dirty"]) == ("topic", "true")
    diff = downloaded(shown, run, "code/uncommitted.diff", tmp_path).read_text()
    assert "+committed = False" in diff
    assert "b/src/new.py" in diff
    assert tags["data.train"] == digests(shown)["train"]
    assert tags["pipeline.weights_sha256"] == sha256(shown.model)
    assert tags["platform"].startswith("Linux")
    assert {"processor", "package.python", "package.keras", "package.mlflow"} <= set(tags)
    assert "pipeline.error" not in tags


def test_files_that_the_pipeline_writes_do_not_make_the_code_dirty(workspace):
    git(workspace, "init")
    git(workspace, "add", "dvc.lock")
    git(workspace, "commit", "--message=first")
    workspace.dvc_lock.write_text(workspace.dvc_lock.read_text() + "# rewritten by dvc repro\n")
    train(config(), workspace)
    run = one_run(workspace)
    assert run.data.tags["git.dirty"] == "false"
    assert "code/uncommitted.diff" not in files(workspace, run)


def test_a_param_that_is_too_long_for_mlflow_is_visibly_shortened(workspace):
    names = [f"class-{number:03}-{'x' * 20}" for number in range(300)]
    train(config(data={"classes": names}), workspace)
    shown = one_run(workspace).data.params["data.classes"]
    assert (len(shown), shown[-1]) == (6000, "…")


def test_a_long_training_is_sent_in_a_few_requests(workspace):
    train(config(), workspace, number=400)
    assert curve(workspace, one_run(workspace)) == [(epoch.epoch, epoch.train_loss) for epoch in epochs(400)]


@pytest.mark.parametrize("created_at_once", [False, True])
def test_two_clones_that_train_the_same_at_once_make_one_run_with_each_epoch_once(
    workspace, tmp_path, model, monkeypatch, created_at_once
):
    clones = [workspace, lay_out(Workspace(tmp_path / "other"), model)]
    uri = f"sqlite:///{shutil.move(workspace.root / 'mlflow.db', tmp_path / 'shared.db')}"
    unsent = config(tracking={"uri": f"http://127.0.0.1:{free_port()}"})
    tracked = config(tracking={"uri": uri}).tracking
    records = []
    for clone in clones:
        train(unsent, clone)
        [folder] = kept(clone)
        records.append(Record(Workspace(folder)))
    # The clone that began first is the last to create its run.
    order = [*zip(clones, records, strict=True)][::-1]
    with monkeypatch.context() as patched:
        if created_at_once:
            patched.setattr(Store, "find", lambda *_, **__: None)
        shown = [(Projection(record, tracked, clone), record) for clone, record in order]
    assert len(runs(uri)) == (2 if created_at_once else 1)
    for projection, record in shown:
        projection.update(record)
    run = one_run(uri)
    assert run.info.start_time == records[0].state.start or not created_at_once
    assert curve(uri, run) == [(epoch.epoch, epoch.train_loss) for epoch in epochs()]
    assert len(run.outputs.model_outputs) == 1
    assert sum(key.startswith("pipeline.occasion.") for key in run.data.tags) == 2


def test_consecutive_runs_have_different_colours(workspace):
    for seed in range(2):
        train(config(seed=seed), workspace)
    colours = [run.data.tags["mlflow.runColor"] for run in runs(workspace)]
    assert len(set(colours)) == 2
