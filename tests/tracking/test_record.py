"""A record of a run on disk, from its start to the point where MLflow has all of it."""

import json

import pytest
from harness import BEST, config, epochs, lay_out

from pipeline.artifacts.history import History, Trained, write_history
from pipeline.artifacts.workspace import Workspace, sha256
from pipeline.tracking.identity import read_run
from pipeline.tracking.record import Record, unsent


@pytest.fixture
def workspace(tmp_path):
    return lay_out(Workspace(tmp_path))


def started(workspace):
    return Record.start(config(), workspace, {})


def test_a_training_that_goes_on_is_running_again(workspace):
    record = started(workspace)
    record.set_state("KILLED", "its process died")
    record.release()
    again = started(workspace)
    kept = json.loads((again.files.root / "state.json").read_text())
    assert (again.id, again.state.status, again.state.error) == (record.id, "RUNNING", "")
    assert (kept["status"], kept["error"]) == ("RUNNING", "")
    again.release()


def test_a_run_whose_process_died_is_sent_as_killed(workspace):
    record = started(workspace)
    assert list(unsent(workspace)) == [], "it is being trained"
    record.release()
    [dead] = unsent(workspace)
    assert (dead.id, dead.state.status, dead.state.error) == (record.id, "KILLED", "its process died")


def test_who_sends_the_run_meanwhile_sees_its_result_once_the_training_has_ended(workspace):
    record = started(workspace)
    assert "result" not in record.run
    write_history(workspace.history, History(epochs(), BEST))
    digests = sha256(workspace.model), sha256(workspace.onnx)
    record.finish_training(Trained(*digests, 650, 3, BEST, None, 1.5), workspace)
    assert record.run["result"]["weights_sha256"] == digests[0]
    assert record.run == read_run(workspace.run) == read_run(record.files.run)
    record.release()


def test_nothing_is_left_of_a_record_that_mlflow_has(workspace):
    record = started(workspace)
    assert list((workspace.scratch / "runs").iterdir())
    record.discard()
    assert list((workspace.scratch / "runs").iterdir()) == []
