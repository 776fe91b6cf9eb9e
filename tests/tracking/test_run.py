"""What MLflow shows of a run that went well, and of one that did not."""

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
    dataset,
    digests,
    epochs,
    evaluate,
    files,
    kept,
    lay_out,
    one_run,
    runs,
    train,
    until,
)

from pipeline.artifacts.history import Epoch
from pipeline.artifacts.onnx_file import load
from pipeline.artifacts.processed import write_dataset
from pipeline.artifacts.workspace import Workspace, sha256
from pipeline.config.messages import validate
from pipeline.config.schema import Config
from pipeline.config.section import leaves
from pipeline.tracking import session as tracking


def git(workspace, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", workspace.root, *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def shown(memory, model):
    """A workspace in a git repository with an uncommitted change, trained and evaluated; to be looked at."""
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


def test_every_leaf_of_the_configuration_is_a_param_and_the_whole_is_an_artifact(shown, tmp_path):
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


def test_the_tags_tell_where_the_run_comes_from(shown, tmp_path):
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


def test_what_the_pipeline_writes_itself_does_not_make_the_code_dirty(workspace):
    git(workspace, "init")
    git(workspace, "add", "dvc.lock")
    git(workspace, "commit", "--message=first")
    workspace.dvc_lock.write_text(workspace.dvc_lock.read_text() + "# rewritten by dvc repro\n")
    train(config(), workspace)
    run = one_run(workspace)
    assert run.data.tags["git.dirty"] == "false"
    assert "code/uncommitted.diff" not in files(workspace, run)


@pytest.mark.parametrize(
    ("error", "status", "tag"),
    [
        (ValueError("the loss\nis lost"), "FAILED", "ValueError: the loss\nis lost"),
        (ValueError("x" * 10_000), "FAILED", "ValueError: " + "x" * 5987 + "…"),
        (KeyboardInterrupt(), "KILLED", "KeyboardInterrupt: "),
    ],
    ids=["exception", "endless message", "interrupt"],
)
def test_a_training_that_ends_early_says_so_in_mlflow(workspace, error, status, tag):
    def stop(epoch):
        if epoch.epoch == 2:
            raise error

    with pytest.raises(type(error)):
        train(config(), workspace, on_epoch=stop)
    run = one_run(workspace)
    assert (run.info.status, run.data.tags["pipeline.error"]) == (status, tag)
    assert [step for step, _ in curve(workspace, run)] == [1, 2]
    assert not workspace.run.exists()


def test_a_failed_evaluation_is_noted_until_a_good_one_and_the_training_stays_finished(workspace):
    train(config(), workspace)
    end = one_run(workspace).info.end_time
    statuses = []

    def fail():
        with tracking.evaluation(config(), workspace):
            until(lambda: statuses.append(one_run(workspace).info.status) or len(statuses) > 2)
            raise ValueError("no test images")

    with pytest.raises(ValueError, match="no test images"):
        fail()
    run = one_run(workspace)
    assert {run.info.status, *statuses} == {"FINISHED"}
    assert run.data.tags["pipeline.error"] == "ValueError: no test images"
    evaluate(config(), workspace)
    run = one_run(workspace)
    assert (run.info.status, run.info.end_time) == ("FINISHED", end)
    assert "pipeline.error" not in run.data.tags


def test_evaluating_again_with_the_same_settings_updates_the_run(workspace):
    train(config(), workspace)
    evaluate(config(), workspace)
    # The metrics stay the same; only a figure changes.
    evaluate(config(), workspace, figure="others")
    run = one_run(workspace)
    folder = client(workspace).download_artifacts(run.info.run_id, "figures")
    assert (Path(folder) / "confusion.png").read_bytes() == b"others"
    assert len(client(workspace).get_metric_history(run.info.run_id, "test_accuracy")) == 1
    evaluate(config(), workspace, accuracy=0.5)
    assert one_run(workspace).data.metrics["test_accuracy"] == 0.5


def test_an_evaluation_with_other_settings_is_a_run_below_the_training_which_stays_as_it_was(workspace):
    train(config(), workspace)
    evaluate(config(), workspace)
    before = one_run(workspace)
    for _ in range(2):
        evaluate(config(evaluate={"tta_shift": 1}), workspace, accuracy=0.5, figure="others")
        tracking.sync(config().tracking, workspace)
    [other] = [run for run in runs(workspace) if run.info.run_id != before.info.run_id]
    [training] = [run for run in runs(workspace) if run.info.run_id == before.info.run_id]
    assert training.data.to_dictionary() == before.data.to_dictionary()
    assert files(workspace, training) == files(workspace, before)
    assert other.info.run_name == f"{before.info.run_name} evaluated with tta_shift=1"
    assert (other.info.status, other.data.metrics["test_accuracy"]) == ("FINISHED", 0.5)
    assert other.data.params["evaluate.tta_shift"] == "1"
    assert other.data.tags["mlflow.parentRunId"] == before.info.run_id
    assert other.data.tags["pipeline.id"] == before.data.tags["pipeline.id"]
    assert {"figures/confusion.png", "metrics.json", "predictions.csv"} <= set(files(workspace, other))
    # And the first settings are the training's again.
    evaluate(config(), workspace, accuracy=0.75)
    assert len(runs(workspace)) == 2
    [training] = [run for run in runs(workspace) if run.info.run_id == before.info.run_id]
    assert training.data.metrics == before.data.metrics


def test_an_evaluation_on_other_test_images_is_named_after_them(workspace):
    """This happens when a label of a test image was corrected, which does not affect the training."""
    train(config(), workspace)
    evaluate(config(), workspace)
    write_dataset(workspace, dataset(test="d"))
    evaluate(config(), workspace, accuracy=0.5)
    evaluate(config(evaluate={"tta_shift": 1}), workspace, accuracy=0.5)
    [training] = [run for run in runs(workspace) if "mlflow.parentRunId" not in run.data.tags]
    others = {run.info.run_name for run in runs(workspace)} - {training.info.run_name}
    images = f"on test images {digests(workspace)['test'][:8]}"
    name = training.info.run_name
    assert others == {f"{name} evaluated {images}", f"{name} evaluated with tta_shift=1 {images}"}


def test_a_param_that_is_too_long_for_mlflow_is_cut_visibly(workspace):
    names = [f"class-{number:03}-{'x' * 20}" for number in range(300)]
    train(config(data={"classes": names}), workspace)
    shown = one_run(workspace).data.params["data.classes"]
    assert (len(shown), shown[-1]) == (6000, "…")


def test_a_validation_loss_that_is_no_number_is_shown_and_stops_nothing(workspace):
    with tracking.training(config(), workspace, {}) as run:
        run.log_epoch(Epoch(1, 0.5, 0.5, float("nan"), 0.5, 0.1))
        run.log_epoch(Epoch(2, 0.4, 0.5, float("inf"), 0.5, 0.1))
    shown = one_run(workspace)
    assert [step for step, _ in curve(workspace, shown)] == [1, 2]
    assert [step for step, _ in curve(workspace, shown, "val_loss")] == [1, 2]


def test_a_long_training_is_sent_in_a_few_requests(workspace):
    train(config(), workspace, number=400)
    assert curve(workspace, one_run(workspace)) == [(epoch.epoch, epoch.train_loss) for epoch in epochs(400)]


def test_a_record_that_can_not_be_written_ends_the_training_and_mlflow_knows(workspace):
    def fill_the_disk(epoch):
        if epoch.epoch == 2:
            until(lambda: runs(workspace))
            # Removing the record's folder has the same effect as a full disk: both raise OSError.
            [record] = kept(workspace)
            shutil.rmtree(record)
            record.touch()

    with pytest.raises(OSError):
        train(config(), workspace, on_epoch=fill_the_disk)
    assert one_run(workspace).info.status == "FAILED"


def test_runs_that_follow_each_other_are_told_apart_by_colour(workspace):
    for seed in range(2):
        train(config(seed=seed), workspace)
    colours = [run.data.tags["mlflow.runColor"] for run in runs(workspace)]
    assert len(set(colours)) == 2
