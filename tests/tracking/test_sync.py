"""The store survives when it is deleted, moved, copied or damaged, and when runs are deleted."""

import shutil
import signal
import subprocess
import sys

import mlflow
import pytest
from harness import (
    REPOSITORY,
    child,
    client,
    config,
    curve,
    end_of_sending,
    epochs,
    evaluate,
    files,
    free_port,
    kept,
    lay_out,
    one_run,
    report,
    runs,
    train,
    tree,
    until,
)

from pipeline.artifacts.workspace import Workspace
from pipeline.config.params import dump
from pipeline.errors import PipelineError
from pipeline.stages.__main__ import run as run_stage
from pipeline.tracking import session as tracking
from pipeline.tracking.record import unsent

NOWHERE = f"http://127.0.0.1:{free_port()}"


def logged_model(workspace, run, folder):
    [output] = run.outputs.model_outputs
    uri = client(workspace).get_logged_model(output.model_id).artifact_location
    return mlflow.artifacts.download_artifacts(uri, dst_path=str(folder))


def test_sync_rebuilds_a_deleted_store_completely_and_only_once(workspace, tmp_path):
    train(config(), workspace)
    evaluate(config(), workspace)
    before = one_run(workspace)
    (workspace.root / "mlflow.db").rename(tmp_path / "old.db")
    shutil.rmtree(workspace.root / "mlruns")

    # At the same time, to see whether one of them creates a second run.
    commands = [[sys.executable, REPOSITORY / "tests/tracking/harness.py", "sync", workspace.root]] * 2
    for process in [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]:
        assert process.wait() == 0

    # This process has the old file open under the old name.
    moved = Workspace(workspace.root.rename(tmp_path / "elsewhere"))
    shown = child("sync", moved).stdout
    run = one_run(moved)
    assert run.info.run_id != before.info.run_id
    assert run.info.run_id in shown
    assert run.info.run_name == before.info.run_name
    assert run.info.status == "FINISHED"
    assert run.data.params == before.data.params
    assert run.data.metrics == before.data.metrics
    ours = {key: value for key, value in before.data.tags.items() if not key.startswith("mlflow.")}
    assert {key: run.data.tags[key] for key in ours} == ours
    assert curve(moved, run) == [(epoch.epoch, epoch.train_loss) for epoch in epochs()]
    assert {"history.csv", "metrics.json", "figures/confusion.png"} <= set(files(moved, run))
    folder = logged_model(moved, run, tmp_path / "got")
    assert mlflow.keras.load_model(folder).input_shape == (None, 8, 8)
    # Nothing was left to do, so MLflow was not imported.
    assert "mlflow imported: False" in shown


def test_a_run_that_was_deleted_in_mlflow_is_not_restored(workspace):
    train(config(), workspace)
    run = one_run(workspace)
    client(workspace).delete_run(run.info.run_id)
    [line] = list(tracking.sync(config().tracking, workspace))
    assert f"mlflow runs restore --run-id {run.info.run_id}" in line
    evaluate(config(), workspace)
    assert runs(workspace) == []
    assert kept(workspace) == []


def test_a_deleted_experiment_is_reported_in_a_sentence_and_the_run_is_kept(workspace, capfd):
    train(config(), workspace)
    client(workspace).delete_experiment(one_run(workspace).info.experiment_id)
    train(config(seed=1), workspace)
    assert "mlflow experiments restore --experiment-id" in capfd.readouterr().err
    assert len(kept(workspace)) == 1
    with pytest.raises(PipelineError, match="mlflow experiments restore --experiment-id"):
        list(tracking.sync(config().tracking, workspace))
    assert len(kept(workspace)) == 1


@pytest.mark.slow
def test_eight_processes_on_a_fresh_store_make_eight_correct_runs(tmp_path):
    repository = Workspace(tmp_path / "work")
    trials = [Workspace(repository.scratch / "trials" / str(seed)) for seed in range(8)]
    script = [sys.executable, REPOSITORY / "tests" / "tracking" / "harness.py", "train"]
    model = tmp_path / "model.keras"
    for path in (model, model.with_suffix(".onnx")):
        path.write_bytes(b"each logs a copy of it, none opens it")
    processes = [
        subprocess.Popen([*script, lay_out(trial, model).root, "", str(seed)], stderr=subprocess.PIPE)
        for seed, trial in enumerate(trials)
    ]
    for process in processes:
        _, said = process.communicate()
        assert process.returncode == 0, said
        # Each keeps trying, and would succeed once another has created the database.
        assert b"could not be brought up to date" not in said
    ledger = client(repository)
    assert {found.name for found in ledger.search_experiments()} == {"Default", "image-classifier"}
    assert ledger.search_runs(["0"]) == []
    found = {int(run.data.params["seed"]): run for run in runs(repository)}
    assert sorted(found) == list(range(8))
    for seed, run in found.items():
        assert run.info.status == "FINISHED"
        assert curve(repository, run) == [(epoch.epoch, epoch.train_loss) for epoch in epochs(seed=seed)]
        assert run.data.metrics["test_accuracy"] == seed / 10
        assert len(run.outputs.model_outputs) == 1
    assert kept(repository) == []


@pytest.mark.parametrize("kilobytes", [pytest.param(200, marks=pytest.mark.slow), 400])
def test_a_process_killed_while_it_creates_the_store_leaves_no_broken_store(tmp_path, model, kilobytes):
    workspace = lay_out(Workspace(tmp_path / "work"), model)
    command = [sys.executable, REPOSITORY / "tests/tracking/harness.py", "train", workspace.root]

    def size():
        return sum(path.stat().st_size for path in workspace.root.rglob("mlflow.db") if path.is_file())

    with subprocess.Popen(command) as process:
        until(lambda: size() > kilobytes * 1000 or process.poll() is not None)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    child("train", workspace)
    # The killed training's run is the same training's.
    assert one_run(workspace).info.status == "FINISHED"
    assert kept(workspace) == []


def test_a_repository_that_was_moved_opens_its_runs_and_adds_to_them(workspace, tmp_path):
    train(config(), workspace)
    [old] = runs(workspace)
    moved = Workspace(tmp_path / "a b#c%d%20é")
    shutil.move(workspace.root, moved.root)
    # MLflow remembers paths until the process ends.
    child("evaluate", moved)
    run = one_run(moved)
    assert run.info.run_id == old.info.run_id
    assert run.info.artifact_uri.startswith(moved.root.as_uri())
    assert (moved.root / "mlruns").is_dir()
    assert list(moved.root.glob("mlruns/**/figures/confusion.png"))
    folder = logged_model(moved, run, tmp_path / "got")
    assert mlflow.keras.load_model(folder).input_shape == (None, 8, 8)
    assert not workspace.root.exists()


def test_a_copy_writes_nothing_to_the_place_it_was_copied_from(workspace, tmp_path):
    train(config(), workspace)
    copy = Workspace(shutil.copytree(workspace.root, tmp_path / "copy"))
    before = tree(workspace.root)
    child("train", copy, "", 1)
    assert tree(workspace.root) == before
    assert len(runs(copy)) == 2
    assert all(str(copy.root) in run.info.artifact_uri for run in runs(copy))


def test_a_damaged_record_is_named_and_does_not_delay_the_others(workspace, capfd):
    settings = config(tracking={"uri": NOWHERE})
    for seed in range(3):
        train(settings.model_copy(update={"seed": seed}), workspace)
    capfd.readouterr()
    truncated, without_model, good = kept(workspace)
    (truncated / "models" / "run.json").write_text('{"id": "')
    (without_model / "models" / "model.keras").unlink()
    shutil.rmtree(workspace.model.parent)
    lines = list(tracking.sync(config().tracking, workspace))
    assert str(truncated) in capfd.readouterr().err
    assert any("model.keras is missing" in line and "stays" in line for line in lines)
    assert any(line.endswith(f"To give it up, remove {without_model}.") for line in lines)
    assert any(line.startswith("Sent run") for line in lines)
    assert kept(workspace) == [truncated, without_model]
    assert not good.exists()


def test_each_run_is_reported_when_it_is_sent_and_not_at_the_end(workspace):
    settings = config(tracking={"uri": NOWHERE})
    for seed in range(2):
        train(settings.model_copy(update={"seed": seed}), workspace)
    lines = tracking.sync(config().tracking, workspace)
    assert next(lines).startswith("Sent run")
    assert len(kept(workspace)) == 1


def test_a_run_of_older_code_is_sent_although_the_schema_has_changed(workspace):
    train(config(tracking={"uri": NOWHERE}), workspace)
    [record] = kept(workspace)
    path = record / "occasion.json"
    path.write_text(path.read_text().replace('"batch_size"', '"size_of_batches"'))
    workspace.run.unlink()
    list(tracking.sync(config().tracking, workspace))
    assert "train.size_of_batches" in one_run(workspace).data.params


def test_a_model_that_an_older_version_recorded_otherwise_is_refused_with_the_remedy(workspace):
    train(config(tracking={"uri": NOWHERE}), workspace)
    [record] = kept(workspace)
    path = record / "models" / "run.json"
    path.write_text(path.read_text().replace('"onnx_sha256"', '"digest_of_onnx"'))
    workspace.run.unlink()
    [line] = list(tracking.sync(config().tracking, workspace))
    assert f"{path} was written by an older version: run `dvc repro`." in line
    assert "`pipeline sync` with the code of that time sends it" in line
    assert kept(workspace) == [record]


def test_sync_without_runs_to_send_creates_nothing(tmp_path):
    workspace = Workspace(tmp_path)
    assert list(unsent(workspace)) == []
    assert list(tracking.sync(config().tracking, workspace)) == []
    assert list(tmp_path.iterdir()) == []


def test_reports_that_dvc_restored_clear_a_failed_evaluation(workspace):
    train(config(), workspace)

    def fail():
        with tracking.evaluation(config(), workspace):
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    report(workspace)
    list(tracking.sync(config().tracking, workspace))
    run = one_run(workspace)
    assert run.info.status == "FINISHED"
    assert "pipeline.error" not in run.data.tags
    assert run.data.metrics["test_accuracy"] == 0.75


def test_a_later_run_name_is_set_once_and_a_name_set_in_mlflow_stays(workspace):
    train(config(), workspace)
    for name, shown in (("mine", "mine"), ("mine", "by hand"), ("other", "other")):
        if shown == "by hand":
            client(workspace).update_run(one_run(workspace).info.run_id, name="by hand")
        settings = config(tracking={"run_name": name})
        workspace.params.write_text(dump(settings))
        list(tracking.sync(settings.tracking, workspace))
        assert one_run(workspace).info.run_name == shown


def test_a_training_whose_folder_is_deleted_still_ends_its_run(workspace, monkeypatch):
    """DVC deletes the folder of a queued experiment as soon as it has killed the experiment."""
    experiment = lay_out(Workspace(workspace.root / ".dvc" / "tmp" / "exps" / "one"))
    monkeypatch.chdir(experiment.root)

    def stopped():
        with tracking.training(config(), experiment, {}):
            shutil.rmtree(experiment.root)
            sys.exit(143)

    with pytest.raises(SystemExit):
        stopped()
    monkeypatch.chdir(workspace.root)
    end_of_sending()
    assert one_run(workspace).info.status == "KILLED"
    assert kept(workspace) == []


def test_compose_ends_a_run_whose_process_could_not_send_its_end(workspace):
    shutil.copytree(REPOSITORY / "conf", workspace.root / "conf", ignore=shutil.ignore_patterns("local"))
    with pytest.raises(SystemExit):
        train(config(tracking={"uri": NOWHERE}), workspace, on_epoch=lambda epoch: sys.exit(143))
    assert len(kept(workspace)) == 1
    workspace.params.unlink()
    run_stage("compose", workspace)
    assert one_run(workspace).info.status == "KILLED"
    assert kept(workspace) == []
