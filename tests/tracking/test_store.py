"""Which store is used, who creates it, and where its artifacts are, even if the repository is moved."""

import json
import re
import shutil
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from cutting import Proxy
from harness import child, client, config, evaluate, files, kept, lay_out, one_run, runs, train

from pipeline.artifacts.workspace import Workspace
from pipeline.tracking import session as tracking
from pipeline.tracking.database import find_run, relocate_artifacts
from pipeline.tracking.store import _create, open_store, uri_of


def settings(**values):
    return config(tracking=values).tracking


def experiment(workspace, name="image-classifier"):
    return client(workspace).get_experiment_by_name(name)


@pytest.mark.parametrize("name", ["a?b=c", "a%3Fb"])
def test_the_store_is_in_a_clone_whatever_its_folder_is_called(tmp_path, name):
    workspace = Workspace(tmp_path / name)
    workspace.root.mkdir()
    store = open_store(settings(), workspace)
    run = store.client.create_run(store.experiment, tags={"pipeline.id": "1"})
    store.client.log_text(run.info.run_id, "text", "file.txt")
    store.client.set_terminated(run.info.run_id)
    assert find_run(workspace, {"pipeline.id": "1"}) == run.info.run_id
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert {"mlflow.db", "mlruns"} <= {path.name for path in workspace.root.iterdir()}


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+pysqlite"])
def test_a_relative_address_is_relative_to_the_repository_wherever_a_process_runs(
    tmp_path, monkeypatch, scheme
):
    trial = Workspace(tmp_path / "a%20b" / ".pipeline" / "trials" / "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}:///other/mine.db")
    assert uri_of(settings(), trial) == f"{scheme}:///{tmp_path}/a%2520b/other/mine.db"
    for absolute in ("sqlite:////tmp/mine.db", "http://host:5000", "postgresql://host/name"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", absolute)
        assert uri_of(settings(), trial) == absolute


def test_artifacts_of_another_sqlite_store_are_beside_it_even_if_a_trial_creates_it(
    workspace, tmp_path, monkeypatch
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere/new.db")
    trial = lay_out(Workspace(workspace.scratch / "trials" / "1"), workspace.model)
    monkeypatch.chdir(trial.root)
    train(config(), trial)
    shutil.rmtree(trial.root)
    store = f"sqlite:///{tmp_path}/elsewhere/new.db"
    assert "history.csv" in files(store, one_run(store))
    assert one_run(store).info.artifact_uri.startswith((tmp_path / "elsewhere" / "mlruns").as_uri())


def test_the_experiment_has_a_view_that_the_page_of_the_runs_opens(workspace):
    for _ in range(2):
        store = open_store(settings(), workspace)
    tags = store.client.get_experiment(store.experiment).tags
    view = json.loads(tags["mlflow.sharedViewState.results"])
    columns = view["selectedColumns"]
    assert {"metrics.`test_accuracy`", "metrics.`best_val_accuracy`", "params.`model.name`"} <= set(columns)
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_its_charts_are_the_curves_of_the_runs_and_the_best_of_a_sweep(workspace):
    store = open_store(settings(), workspace)
    tags = store.client.get_experiment(store.experiment).tags
    charts = json.loads(tags["mlflow.sharedViewState.results"])["chartsSearchFilter"]
    train(config(), workspace)
    metrics = one_run(workspace).data.metrics
    shown = {name for name in metrics if re.search(charts, name)}
    assert shown >= {"train_accuracy", "train_loss", "val_accuracy", "val_loss", "best_val_accuracy"}
    assert len(shown) <= 6


def test_a_new_database_is_created_by_one_process_at_a_time(tmp_path):
    workspace, tracked = Workspace(tmp_path / "new"), settings()
    with ThreadPoolExecutor(4) as threads:
        opened = list(threads.map(lambda _: open_store(tracked, workspace), range(4)))
    assert len({store.experiment for store in opened}) == 1
    assert {found.name for found in opened[0].client.search_experiments()} == {"Default", "image-classifier"}


def test_ten_runs_have_ten_colours(workspace):
    store = open_store(settings(), workspace)
    for number in range(25):
        # The worst case: all ids lead to the same colour.
        tags = {"mlflow.runColor": store.new_colour("0"), "pipeline.id": str(number)}
        store.client.create_run(store.experiment, number + 1, tags)
    colours = [run.data.tags["mlflow.runColor"] for run in runs(workspace)]
    assert all(len(set(colours[start : start + 10])) == 10 for start in range(16))


@pytest.mark.parametrize(
    "tags", [{"pipeline.id": "1"}, {"pipeline.sweep": "2"}, {"pipeline.evaluation": "3", "pipeline.id": "1"}]
)
def test_two_clones_that_create_a_run_at_once_use_the_first_one(workspace, tags):
    store = open_store(settings(), workspace)
    made = []

    def create():
        # Another clone found no run either, and is a moment faster.
        made.extend(store.client.create_run(store.experiment, start, tags) for start in (1000, 2000))
        return made[1]

    assert store.find_or_create(tags, create).info.run_id == made[0].info.run_id
    assert one_run(workspace).info.run_id == made[0].info.run_id
    assert store.find_or_create(tags, create).info.run_id == made[0].info.run_id
    assert len(made) == 2


def move(workspace, target):
    shutil.move(workspace.root, target)
    return Workspace(target)


def test_a_store_that_was_replaced_by_a_backup_is_the_one_that_is_read_and_written(workspace):
    """An open connection to the old file would not see the new one, and would delete its journal."""
    known = open_store(settings(), workspace).client
    known.create_registered_model("digits")
    file = workspace.home / "mlflow.db"
    shutil.copy(file, file.with_suffix(".backup"))
    file.with_suffix(".backup").rename(file)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE registered_models SET description = 'restored'")
        assert known.get_registered_model("digits").description is None
    assert known.get_registered_model("digits").description == "restored"


def test_an_experiment_that_was_renamed_follows_a_move(workspace, tmp_path):
    train(config(), workspace)
    client(workspace).rename_experiment(experiment(workspace).experiment_id, "another name")
    moved = move(workspace, tmp_path / "moved")
    relocate_artifacts(moved)
    assert "history.csv" in files(moved, one_run(moved))
    assert str(moved.root) in one_run(moved).info.artifact_uri


def test_another_clones_artifacts_stay_where_they_are(workspace, tmp_path):
    # Another clone uses this repository's database, and keeps its artifacts itself.
    other = tmp_path / "other"
    location = (other / "mlruns" / "theirs").as_uri()
    number = client(workspace).create_experiment("theirs", location)
    run = client(workspace).create_run(number)
    client(workspace).log_text(run.info.run_id, "theirs", "file.txt")
    (workspace.root / "mlruns" / "theirs").mkdir(parents=True)
    relocate_artifacts(workspace)
    assert experiment(workspace, "theirs").artifact_location == location
    assert files(workspace, run) == ["file.txt"]


def test_a_copied_repository_gets_its_own_experiment_even_without_runs(workspace, tmp_path):
    open_store(settings(), workspace)
    copy = Workspace(shutil.copytree(workspace.root, tmp_path / "copy"))
    relocate_artifacts(copy)
    assert str(copy.root) in experiment(copy).artifact_location
    relocate_artifacts(workspace)
    with closing(sqlite3.connect(workspace.root / "mlflow.db")) as connection:
        query = "SELECT artifact_location FROM experiments WHERE name = 'image-classifier'"
        assert str(copy.root) not in connection.execute(query).fetchone()[0]


def test_artifacts_that_were_deleted_are_restored_by_sync(workspace):
    train(config(), workspace)
    evaluate(config(), workspace)
    run = one_run(workspace)
    before = files(workspace, run)
    shutil.rmtree(workspace.root / "mlruns")
    assert find_run(workspace, {"pipeline.id": run.data.tags["pipeline.id"]}) is None
    child("sync", workspace)
    assert files(workspace, run) == before
    [output] = one_run(workspace).outputs.model_outputs
    assert list((workspace.root / "mlruns").glob(f"**/{output.model_id}/artifacts/data/model.keras"))
    assert one_run(workspace).data.metrics == run.data.metrics
    assert len(client(workspace).get_metric_history(run.info.run_id, "test_accuracy")) == 1
    assert "mlflow imported: False" in child("sync", workspace).stdout


def test_a_run_finishes_although_its_artifacts_cannot_be_stored_and_sync_sends_them(workspace, capfd):
    # A file instead of the folder, because a read-only folder does not stop root.
    (workspace.root / "mlruns").write_text("")
    train(config(), workspace)
    assert one_run(workspace).info.status == "FINISHED"
    assert len(kept(workspace)) == 1
    assert "could not be brought up to date" in capfd.readouterr().err
    (workspace.root / "mlruns").unlink()
    list(tracking.sync(config().tracking, workspace))
    assert "history.csv" in files(workspace, one_run(workspace))
    assert kept(workspace) == []


def test_a_slow_server_delays_the_end_of_a_training_by_no_more_than_the_timeout(workspace, server):
    proxy = Proxy(server.uri)
    proxy.delay = 1.0
    slow = config(tracking={"uri": proxy.uri, "timeout": 3.0, "experiment": "slow"})
    try:
        # The first imports in a process take long, which is not due to the server.
        open_store(slow.tracking, workspace)
        before = time.monotonic()
        train(slow, workspace)
        taken = time.monotonic() - before
        assert len(proxy.requests) > 3
        assert taken < 3.0 + 3.0
        [record] = kept(workspace)
        proxy.delay = 0.0
        evaluate(slow, workspace)
        list(tracking.sync(slow.tracking, workspace))
        assert kept(workspace) == []
        [run] = [run for run in runs(server.uri) if run.data.tags.get("pipeline.id") == record.name]
        assert (run.info.status, run.data.metrics["test_accuracy"]) == ("FINISHED", 0.75)
        history = client(server.uri).get_metric_history(run.info.run_id, "val_accuracy")
        assert [metric.step for metric in history] == [1, 2, 3]
    finally:
        proxy.stop()


def test_a_store_that_another_process_created_meanwhile_is_not_replaced(tmp_path, monkeypatch, empty_store):
    workspace = Workspace(tmp_path / "work")
    workspace.root.mkdir()
    from mlflow.store.tracking import sqlalchemy_store

    workspace.scratch.mkdir()

    class StoreThatLosesTheRace(sqlalchemy_store.SqlAlchemyStore):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            shutil.copy(empty_store, workspace.root / "mlflow.db")
            with closing(sqlite3.connect(workspace.root / "mlflow.db")) as connection, connection:
                connection.execute("INSERT INTO experiments (experiment_id, name) VALUES (77, 'of the page')")

    monkeypatch.setattr(sqlalchemy_store, "SqlAlchemyStore", StoreThatLosesTheRace)
    _create(workspace.root / "mlflow.db", workspace)
    with closing(sqlite3.connect(workspace.root / "mlflow.db")) as connection:
        assert ("of the page",) in connection.execute("SELECT name FROM experiments").fetchall()
