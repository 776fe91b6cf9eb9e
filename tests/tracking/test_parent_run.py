"""MLflow shows a sweep as one parent run of its trials' runs, however often it is sent."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from harness import Server, client, config, evaluate, files, free_port, kept, one_run, runs, train
from sweep_runs import (
    PARENT,
    SWEEP,
    known,
    of,
    parents_and_children,
    plan,
    sent,
    text,
    trained_in,
    trial,
    within,
)

from pipeline.errors import PipelineError, PrunedError
from pipeline.results.publish import publish
from pipeline.results.report import Trial
from pipeline.tracking import session as tracking
from pipeline.tracking.record import now


@pytest.fixture
def folder(workspace):
    """The folder of SWEEP in the repository, with its report."""
    return plan(workspace, SWEEP.id, {"seed": "0"}, {"seed": "1"})


def test_a_sweep_that_is_sent_again_updates_the_same_run(workspace, folder):
    failed = Trial(1, "key1", differs={"seed": "0"}, state="failed", error="The loss is NaN.")
    first = sent(of(failed), folder, workspace)
    assert sent(of(failed), folder, workspace) is None
    assert (folder / "parent").read_text().strip() == first
    both = of(failed, replace(failed, number=2, differs={"seed": "1"}))
    ended = replace(both, status="FINISHED", end=SWEEP.start + 5)
    assert sent(ended, folder, workspace) == first
    run = one_run(workspace)
    assert (run.info.run_name, run.info.start_time) == (SWEEP.name, SWEEP.start)
    assert (run.info.status, run.info.end_time) == ("FINISHED", ended.end)
    assert run.data.metrics["trials_failed"] == 2
    assert text(workspace, run, "leaderboard.csv").count("The loss is NaN.") == 2
    assert files(workspace, run) == ["leaderboard.csv", "trials.csv"]
    # The sweep continues, as after an interruption.
    sent(both, folder, workspace)
    assert one_run(workspace).info.status == "RUNNING"
    assert len(client(workspace).get_metric_history(first, "trials")) == 2


def test_a_trial_is_below_its_sweep_from_its_first_epoch_and_named_by_what_differs(
    workspace, folder, monkeypatch
):
    parent = sent(SWEEP, folder, workspace)
    within(monkeypatch, folder, seed="1")
    seen = []

    def look(epoch):
        _, children = parents_and_children(workspace)
        seen.extend((run.data.tags[PARENT], run.info.status) for run in children)

    train(config(seed=1), trial(workspace, 1), number=40, on_epoch=look)
    assert set(seen) == {(parent, "RUNNING")}
    _, [child] = parents_and_children(workspace)
    assert child.info.run_name.startswith("seed=1-")
    assert child.data.tags[f"pipeline.sweep.{SWEEP.id}"] == "seed=1"


def test_trials_before_and_after_the_sweeps_own_run_differ_in_colour(workspace, folder):
    train(config(), workspace)
    sent(replace(SWEEP, start=now()), folder, workspace)
    train(config(seed=1), workspace)
    trained = [run for run in runs(workspace) if "pipeline.id" in run.data.tags]
    assert len({run.data.tags["mlflow.runColor"] for run in trained}) == 2


def test_a_configured_name_is_kept_and_a_training_outside_of_a_sweep_has_no_parent(
    workspace, folder, monkeypatch
):
    within(monkeypatch, folder, seed="0")
    train(config(tracking={"run_name": "mine"}), trial(workspace, 0))
    assert one_run(workspace).info.run_name == "mine"
    client(workspace).delete_run(one_run(workspace).info.run_id)
    monkeypatch.delenv("PIPELINE_TRIAL")
    train(config(seed=1), trial(workspace, 1))
    run = one_run(workspace)
    assert run.info.run_name.startswith("smoke-")
    assert PARENT not in run.data.tags


def test_a_run_from_before_the_sweep_stays_where_it_is_and_names_the_sweep(workspace, folder):
    train(config(), workspace)
    before = one_run(workspace)
    parent = sent(of(known(1, before.data.tags["pipeline.id"])), folder, workspace)
    found, children = parents_and_children(workspace)
    assert children == []
    [run] = [run for run in found if run.info.run_id != parent]
    assert (run.info.run_id, run.info.run_name) == (before.info.run_id, before.info.run_name)
    assert run.data.tags[f"pipeline.sweep.{SWEEP.id}"] == "seed=0"


def test_a_run_that_the_sweep_trained_is_put_below_it_wherever_the_run_was_rebuilt(workspace, folder):
    train(config(), workspace)
    own = known(1, one_run(workspace).data.tags["pipeline.id"])
    trained_in(folder, own.run_id)
    parent = sent(of(own), folder, workspace)
    [_], [child] = parents_and_children(workspace)
    assert child.data.tags[PARENT] == parent


def test_many_runs_from_before_the_sweep_name_it_too(workspace, folder):
    train(config(), workspace)
    experiment = one_run(workspace).info.experiment_id
    for number in range(30):
        client(workspace).create_run(experiment, tags={"pipeline.id": f"{number:032x}"})
    trials = [known(number, f"{number:032x}", seed=str(number)) for number in range(25)]
    sent(of(*trials), folder, workspace)
    members = [run for run in runs(workspace) if f"pipeline.sweep.{SWEEP.id}" in run.data.tags]
    assert {run.data.tags["pipeline.id"] for run in members} == {trial.run_id for trial in trials}


def test_a_later_sweep_does_not_take_over_the_trials_of_an_earlier_one(workspace, folder):
    train(config(), workspace)
    own = known(1, one_run(workspace).data.tags["pipeline.id"])
    trained_in(folder, own.run_id)
    first = sent(of(own), folder, workspace)
    later = of(replace(own, differs={"seed": "0", "train.epochs": "5"}), id="b" * 16)
    sent(later, plan(workspace, later.id), workspace)
    parents, [child] = parents_and_children(workspace)
    assert len(parents) == 2
    assert child.data.tags[PARENT] == first
    assert child.data.tags[f"pipeline.sweep.{SWEEP.id}"] == "seed=0"
    assert child.data.tags[f"pipeline.sweep.{later.id}"] == "seed=0, train.epochs=5"


def test_a_sweep_is_complete_only_when_the_runs_of_its_trials_are_in_mlflow(workspace, folder):
    nowhere = config(tracking={"uri": f"http://127.0.0.1:{free_port()}"})
    train(nowhere, workspace)
    [record] = kept(workspace)
    sweep = of(known(1, record.name))
    trained_in(folder, record.name)
    parent = sent(sweep, folder, workspace)
    list(tracking.sync(config().tracking, workspace))
    assert sent(sweep, folder, workspace) == parent
    _, [child] = parents_and_children(workspace)
    assert child.data.tags[PARENT] == parent
    assert sent(sweep, folder, workspace) is None


def test_a_pruned_trial_is_marked_and_is_not_a_failure(workspace, folder, monkeypatch):
    within(monkeypatch, folder, seed="0")
    settings, place = config(), trial(workspace, 0)

    def prune(epoch):
        raise PrunedError("val_accuracy 0.1 is below the median of epoch 1")

    with pytest.raises(PrunedError):
        train(settings, place, on_epoch=prune)
    assert one_run(workspace).info.status == "KILLED"
    pruned = Trial(1, differs={"seed": "0"}, state="pruned", error="below the median")
    sent(of(pruned), folder, workspace)
    [parent], [child] = parents_and_children(workspace)
    assert child.data.tags[PARENT] == parent.info.run_id
    assert child.data.tags["pipeline.pruned"] == "below the median"
    assert "val_accuracy 0.1 is below the median of epoch 1" in child.data.tags["pipeline.error"]


def test_a_training_that_could_not_be_sent_is_put_below_its_sweep_later(workspace, folder, monkeypatch):
    parent = sent(SWEEP, folder, workspace)
    nowhere = f"http://127.0.0.1:{free_port()}"
    within(monkeypatch, folder, seed="0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nowhere)
    place = trial(workspace, 0)
    train(config(), place)
    evaluate(config(), place)
    monkeypatch.delenv("PIPELINE_TRIAL")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    list(tracking.sync(config().tracking, workspace))
    _, [child] = parents_and_children(workspace)
    assert child.data.tags[PARENT] == parent
    assert child.data.metrics["test_accuracy"] == 0.75


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from sweep_runs import SWEEP, sent
from pipeline.artifacts.workspace import Workspace
folder, uri = Path(sys.argv[2]), sys.argv[3] or None
sweep = replace(SWEEP, tracking={**SWEEP.tracking, "uri": uri})
print(sent(sweep, folder, Workspace(folder.parents[2])), "mlflow" in sys.modules)
"""


def sent_by_a_process(folder, uri=""):
    command = [sys.executable, "-c", SCRIPT, Path(__file__).parent, folder, uri]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_sweep_that_mlflow_has_is_not_sent_again_and_mlflow_is_not_imported(workspace, folder):
    sent(SWEEP, folder, workspace)
    assert sent_by_a_process(folder) == ["None", "False"]
    # The store is lost, and the sweep's run with it.
    shutil.copy(workspace.root / "mlflow.db", workspace.root / "old.db")
    (workspace.root / "mlflow.db").unlink()
    run_id, imported = sent_by_a_process(folder)
    assert (len(run_id), imported) == (32, "True")


def test_a_sweep_is_sent_to_a_server_once(workspace, folder, server):
    run_id = sent(replace(SWEEP, tracking={**SWEEP.tracking, "uri": server.uri}), folder, workspace)
    assert client(server.uri).get_run(run_id).data.params["space.seed"] == "0, 1"
    assert sent_by_a_process(folder, server.uri) == ["None", "False"]


def test_lines_that_mlflow_prints_about_a_server_do_not_appear(workspace, folder, server, capfd):
    ended = replace(SWEEP, status="FINISHED", end=SWEEP.start + 5)
    sent(replace(ended, tracking={**SWEEP.tracking, "uri": server.uri}), folder, workspace)
    assert "View run" not in capfd.readouterr().out


def test_a_sweep_that_was_deleted_in_mlflow_is_not_restored(workspace, folder):
    run_id = sent(SWEEP, folder, workspace)
    client(workspace).delete_run(run_id)
    assert sent(SWEEP, folder, workspace) is None
    said = publish(replace(SWEEP, status="KILLED"), folder, workspace)
    assert f"mlflow runs restore --run-id {run_id}" in said
    assert runs(workspace) == []


def test_an_unreachable_server_loses_nothing_and_its_password_is_not_shown(
    workspace, folder, tmp_path, monkeypatch
):
    server, sweep = Server(tmp_path), replace(SWEEP, tracking={**SWEEP.tracking, "timeout": 2.0})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri.replace("//", "//user:secret@"))
    with pytest.raises(PipelineError, match="could not be brought up to date") as refusal:
        sent(sweep, folder, workspace)
    assert "`pipeline sync` sends it" in str(refusal.value)
    assert "secret" not in str(refusal.value)
    try:
        run_id = sent(sweep, folder, server.start() and workspace)
        assert client(server.uri).get_run(run_id).data.metrics["trials"] == 0
    finally:
        server.kill()
