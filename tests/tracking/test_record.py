"""A record of a run on disk, from its start to the point where MLflow has all of it."""

import json
import shutil
import threading
import time

import pytest
from harness import BEST, config, epochs, lay_out

from pipeline.artifacts.history import History, Trained, write_history
from pipeline.artifacts.workspace import Workspace, sha256
from pipeline.config.params import dump
from pipeline.errors import PipelineError
from pipeline.processes.context import TrialContext
from pipeline.tracking.identity import read_run
from pipeline.tracking.record import Record, unsent
from pipeline.tracking.session import close_dead


@pytest.fixture
def workspace(tmp_path):
    return lay_out(Workspace(tmp_path))


def started(workspace):
    return Record.start(config(), workspace, {})


def finish(record, workspace):
    write_history(workspace.history, History(epochs(), BEST))
    digests = sha256(workspace.model), sha256(workspace.onnx)
    record.finish_training(Trained(*digests, 650, 3, BEST, None, 1.5), workspace)


def in_thread(do):
    # A daemon, so that an endless wait does not keep the tests from ending.
    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    return thread


def test_a_training_that_continues_is_running_again(workspace):
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
    assert list(unsent(workspace)) == [], "the training still holds the record"
    record.release()
    for _ in range(2):  # The first pass releases what it locked.
        [dead] = unsent(workspace)
        assert (dead.id, dead.state.status, dead.state.error) == (record.id, "KILLED", "its process died")


def test_another_thread_may_release_the_record(workspace):
    record = started(workspace)
    in_thread(record.release).join()
    assert len(list(unsent(workspace))) == 1


@pytest.mark.parametrize("ends", [Record.release, Record.discard])
def test_a_second_training_of_the_same_run_waits_for_the_first(workspace, ends):
    record, begun = started(workspace), []
    waiting = in_thread(lambda: begun.append(started(workspace)))
    waiting.join(0.5)
    assert begun == []
    ends(record)
    waiting.join(10)
    assert [second.id for second in begun] == [record.id]
    begun[0].release()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.json", b"{"),
        ("state.json", b"\xff"),
        ("params.yaml", b""),
        ("params.yaml", b"a: [\n"),
        ("params.yaml", b"name: 2024-13-45\n"),
        ("params.yaml", b"tracking: 1\n"),
    ],
)
def test_a_damaged_record_is_named_and_not_changed(workspace, capsys, name, content):
    record = started(workspace)
    (record.files.root / name).write_bytes(content)
    record.release()
    assert list(unsent(workspace)) == []
    assert f"{record.files.root} is damaged" in capsys.readouterr().err
    close_dead(config().tracking, workspace)
    assert f"{record.files.root} is damaged" in capsys.readouterr().err or name != "state.json"
    assert record.files.run.exists()


def test_a_trial_is_named_by_its_differences_and_has_the_id_of_its_sweep(workspace, monkeypatch):
    context = TrialContext(sweep="lr-42", differs={"train.learning_rate": "0.01", "seed": "1"})
    for name, value in context.as_environment().items():
        monkeypatch.setenv(name, value)
    record = started(workspace)
    assert record.label == f"learning_rate=0.01,seed=1-{record.id[:6]}"
    assert (record.state.sweep, record.state.differs) == ("lr-42", "train.learning_rate=0.01, seed=1")
    record.release()


def test_a_run_has_the_name_that_the_configuration_gives(workspace):
    record = Record.start(config(tracking={"run_name": "mine"}), workspace, {})
    assert record.label == "mine"
    record.release()


def test_a_restored_run_has_the_configuration_that_it_depends_on(workspace):
    record = started(workspace)
    record.release()
    workspace.run.parent.mkdir(exist_ok=True)
    shutil.copy(record.files.run, workspace.run)
    restored = Record(workspace)
    values = config().model_dump(mode="json")
    assert (restored.state, restored.occasions, restored.evaluation) == (None, [], None)
    assert restored.config["train"] == values["train"]
    assert restored.config["modules"]["model"] == values["modules"]["model"]
    assert restored.label == f"digits-mlp-{record.id[:6]}"


def test_a_run_is_not_evaluated_with_the_model_of_another_run(workspace):
    record = started(workspace)
    finish(record, workspace)
    record.release()
    workspace.params.write_text(dump(config()))
    workspace.onnx.write_bytes(b"of another run")
    with pytest.raises(PipelineError, match="is not the model of the run"):
        Record.resume(config(), workspace)


def test_a_training_stays_finished_if_the_process_of_its_evaluation_dies(workspace):
    record = started(workspace)
    finish(record, workspace)
    record.discard()
    other = config(evaluate={"tta_shift": 1})
    workspace.params.write_text(dump(other))
    Record.resume(other, workspace).release()
    [evaluation] = unsent(workspace)
    assert evaluation.state.status == "FINISHED"
    assert evaluation.config == other.model_dump(mode="json")


def test_the_end_of_a_run_is_set_once(workspace):
    record = started(workspace)
    assert record.state.end is None
    record.set_state("FINISHED")
    ended = record.state.end
    assert ended >= record.state.start
    time.sleep(0.002)
    record.set_state("FINISHED")
    assert record.state.end == ended
    record.release()


def test_the_occasion_of_a_training_that_ended_has_its_weights(workspace):
    record = started(workspace)
    finish(record, workspace)
    [known] = Record(workspace).occasions
    assert [known] == record.occasions == Record(record.files).occasions
    assert known.weights_sha256 == sha256(workspace.model)
    record.discard()
    again = started(workspace)
    assert again.occasions[0] == known
    assert len(again.occasions) == 2
    again.release()


def test_no_lock_file_is_left_after_sending(workspace):
    record = started(workspace)
    before = sorted((workspace.scratch / "runs").iterdir())
    with record.sending():
        assert sorted((workspace.scratch / "runs").iterdir()) != before
    assert sorted((workspace.scratch / "runs").iterdir()) == before
    record.release()


def test_the_record_has_its_result_once_the_training_has_ended(workspace):
    record = started(workspace)
    assert "result" not in record.run
    finish(record, workspace)
    assert record.run["result"]["weights_sha256"] == sha256(workspace.model)
    for name in ("model", "onnx", "history"):
        assert getattr(record.files, name).read_bytes() == getattr(workspace, name).read_bytes()
    assert record.run == read_run(workspace.run) == read_run(record.files.run)
    record.release()


def test_a_record_that_mlflow_has_is_removed_completely(workspace):
    record = started(workspace)
    assert list((workspace.scratch / "runs").iterdir())
    record.discard()
    assert list((workspace.scratch / "runs").iterdir()) == []
