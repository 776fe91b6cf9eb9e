"""What MLflow shows of evaluations that are repeated, with the same settings or with others."""

from pathlib import Path

from harness import client, config, dataset, digests, evaluate, files, one_run, runs, train

from pipeline.artifacts.processed import write_dataset
from pipeline.tracking import session as tracking


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


def test_an_evaluation_with_other_settings_is_a_child_run_and_changes_no_other(workspace):
    train(config(), workspace)
    evaluate(config(), workspace)
    before = one_run(workspace)
    for _ in range(2):
        evaluate(config(evaluate={"tta_shift": 1}), workspace, accuracy=0.5, figure="others")
        list(tracking.sync(config().tracking, workspace))
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
    # An evaluation with the first settings updates the run of the training again.
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
