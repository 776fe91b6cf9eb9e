import csv
from dataclasses import replace

import pytest
from filelock import FileLock
from made_up import sweep, trial

from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError
from pipeline.results.publish import publish, publish_all
from pipeline.results.report import Report

RATE = "train.learning_rate"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository with its own store, which the tests of this file share: MLflow's tables take seconds."""
    return Workspace(tmp_path_factory.mktemp("repository"))


def ended(number, *groups, **changes):
    """A finished sweep whose id is `number`."""
    return replace(sweep(*groups), id=f"{number:016x}", status="FINISHED", end=1_700_000_009_000, **changes)


def published(repository, report):
    """Return what `publish` prints, and the run that MLflow shows."""
    folder = repository.sweeps / report.id
    report.write(folder)
    said = publish(report, folder, repository)
    return said, run_of(repository, report)


def client(repository):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{repository.root}/mlflow.db")


def table(repository, run, name):
    path = client(repository).download_artifacts(run.info.run_id, name)
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run_of(repository, report):
    experiment = client(repository).get_experiment_by_name("image-classifier")
    [run] = client(repository).search_runs(
        [experiment.experiment_id], f"tags.`pipeline.sweep` = '{report.id}'"
    )
    return run


SEEDS = [
    trial({"val_accuracy": accuracy, "val_loss": 0.25, "parameters": 50}, **{RATE: rate, "seed": seed})
    for rate, seed, accuracy in [
        ("0.1", "0", 0.99),
        ("0.1", "1", 0.5),
        ("0.01", "0", 0.9),
        ("0.01", "1", 0.8),
    ]
]
REST = [
    trial({}, "failed", "The loss is NaN.", **{RATE: "9"}),
    trial({}, "pruned", **{RATE: "3"}),
]


def test_mlflow_shows_the_space_the_best_setting_the_leaderboard_and_every_trial(repository):
    report = ended(1, SEEDS, REST)
    said, run = published(repository, report)
    assert run.info.run_id in said
    assert run.data.params == {
        "objectives": "val_accuracy",
        "sweeper": "grid",
        "launcher": "joblib",
        f"space.{RATE}": "0.01, 0.003",
    }
    assert run.data.metrics == {
        "trials": 6,
        "trials_failed": 1,
        "trials_pruned": 1,
        "best_val_accuracy": pytest.approx(0.85),
        "best_val_loss": 0.25,
        "best_parameters": 50,
    }
    assert run.data.tags["pipeline.best"] == "smoke-3"
    assert "**learning_rate=0.01** with val_accuracy 85.00 % ± 7.07" in run.data.tags["mlflow.note.content"]
    assert "`pipeline adopt smoke-3`" in run.data.tags["mlflow.note.content"]
    trials = table(repository, run, "trials.csv")
    assert [row["state"] for row in trials] == ["done"] * 4 + ["failed", "pruned"]
    assert [row[RATE] for row in trials] == ["0.1", "0.1", "0.01", "0.01", "9", "3"]
    first, second, *rest = table(repository, run, "leaderboard.csv")
    assert (first["rank"], first[RATE], first["val_accuracy"], first["seeds"]) == ("1", "0.01", "0.85", "2")
    assert second["val_accuracy_sd"] == "0.346482"
    assert [row["error"] for row in rest] == ["The loss is NaN.", ""]
    figures = client(repository).list_artifacts(run.info.run_id, "figures")
    assert {figure.path for figure in figures} == {
        "figures/by_hyperparameter.png",
        "figures/parallel_coordinates.png",
    }


def test_a_repeated_sweep_is_only_published_again_if_a_result_is_new(repository):
    report = ended(2, SEEDS)
    published(repository, report)
    known = replace(
        report,
        start=report.start + 10**6,
        trials=tuple(replace(trial, state="known", seconds=None) for trial in report.trials),
    )
    assert published(repository, known)[0] == ""
    better = replace(known.trials[0], values={"val_accuracy": 0.96})
    said, run = published(repository, replace(known, trials=(better, *known.trials[1:])))
    assert said
    assert run.data.metrics["best_val_accuracy"] == pytest.approx(0.85)
    fewer = replace(known, trials=known.trials[:3])
    assert published(repository, fewer)[1].data.metrics["best_val_accuracy"] == 0.9


def test_a_sweep_that_has_just_started_has_a_run_without_figures(repository):
    report = replace(ended(3, [trial({}, "waiting", seed="1")]), status="RUNNING", end=None)
    _, run = published(repository, report)
    assert run.info.status == "RUNNING"
    assert "No trial has a result yet." in run.data.tags["mlflow.note.content"]
    assert not client(repository).list_artifacts(run.info.run_id, "figures")


def test_sync_sends_what_mlflow_lacks_and_ends_killed_sweeps_but_not_running_ones(tmp_path):
    repository = Workspace(tmp_path)
    first, second = (replace(ended(n, SEEDS), start=n) for n in (1, 2))
    killed, live = (
        replace(ended(n, SEEDS), start=n, status="RUNNING", end=None, name=f"sweep-{n}") for n in (3, 4)
    )
    for report in (live, killed, second, first):
        report.write(repository.sweeps / report.id)
    with FileLock(repository.sweeps / f"{live.id}.lock"):
        lines = list(publish_all(repository))
    assert [line.rpartition(":")[0] for line in lines] == [
        "MLflow run smoke-sweep-3f2a (FINISHED)",
        "MLflow run smoke-sweep-3f2a (FINISHED)",
        "MLflow run sweep-3 (KILLED)",
    ]
    assert run_of(repository, killed).info.status == "KILLED"
    assert Report.read(repository.sweeps / killed.id).status == "KILLED"
    assert Report.read(repository.sweeps / live.id).status == "RUNNING"
    assert list(publish_all(repository))[:-1] == []


def test_a_sweep_that_cannot_be_sent_stays_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    repository, report = Workspace(tmp_path), ended(5, SEEDS)
    report.write(repository.sweeps / report.id)
    with pytest.raises(PipelineError, match="`pipeline sync` sends it"):
        list(publish_all(repository))
    assert Report.read(repository.sweeps / report.id) == report
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert len(list(publish_all(repository))) == 1


def test_a_damaged_receipt_counts_as_none(tmp_path):
    tracking = {"uri": "http://127.0.0.1:9", "experiment": "x", "run_name": None, "timeout": 1.0}
    folder = tmp_path / ".pipeline" / "sweeps" / "1"
    folder.mkdir(parents=True)
    (folder / "sent").write_bytes(b"\xff")
    with pytest.raises(PipelineError, match="could not be brought up to date"):
        publish(ended(1, [trial(seed="0")], tracking=tracking), folder, Workspace(tmp_path))
