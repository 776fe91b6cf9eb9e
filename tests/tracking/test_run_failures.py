"""What MLflow shows of a training or an evaluation that failed."""

import shutil

import pytest
from harness import config, curve, evaluate, kept, one_run, runs, train, until

from pipeline.artifacts.history import Epoch
from pipeline.tracking import session as tracking


@pytest.mark.parametrize(
    ("error", "status", "tag"),
    [
        (ValueError("the loss\nis lost"), "FAILED", "ValueError: the loss\nis lost"),
        (ValueError("x" * 10_000), "FAILED", "ValueError: " + "x" * 5987 + "…"),
        (KeyboardInterrupt(), "KILLED", "KeyboardInterrupt: "),
    ],
    ids=["exception", "endless message", "interrupt"],
)
def test_a_training_that_fails_or_is_interrupted_says_so_in_mlflow(workspace, error, status, tag):
    def stop(epoch):
        if epoch.epoch == 2:
            raise error

    with pytest.raises(type(error)):
        train(config(), workspace, on_epoch=stop)
    run = one_run(workspace)
    assert (run.info.status, run.data.tags["pipeline.error"]) == (status, tag)
    assert [step for step, _ in curve(workspace, run)] == [1, 2]
    assert not workspace.run.exists()


def test_a_failed_evaluation_is_noted_until_one_succeeds_and_the_run_stays_finished(workspace):
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


def test_a_validation_loss_that_is_not_a_number_is_logged_and_stops_nothing(workspace):
    with tracking.training(config(), workspace, {}) as run:
        run.log_epoch(Epoch(1, 0.5, 0.5, float("nan"), 0.5, 0.1))
        run.log_epoch(Epoch(2, 0.4, 0.5, float("inf"), 0.5, 0.1))
    shown = one_run(workspace)
    assert [step for step, _ in curve(workspace, shown)] == [1, 2]
    assert [step for step, _ in curve(workspace, shown, "val_loss")] == [1, 2]


def test_a_record_that_cannot_be_written_ends_the_training_and_the_run_has_failed(workspace):
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
