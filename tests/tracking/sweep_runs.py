"""A sweep and its trials, to be sent to MLflow."""

import json
from pathlib import Path

from harness import client, lay_out, runs

from pipeline.artifacts.workspace import Workspace
from pipeline.processes.context import TrialContext
from pipeline.tracking.parent_run import SweepRun

PARENT = "mlflow.parentRunId"


def draw(folder):
    folder.mkdir(exist_ok=True)
    (folder / "parallel_coordinates.png").write_bytes(b"a picture")


SWEEP = SweepRun(
    id="3f2a" * 4,
    name="sweep-smoke-3f2a",
    digest="first",
    status="RUNNING",
    start=1_700_000_000_000,
    end=None,
    params={"objectives": "val_accuracy", "space.train.learning_rate": "0.01, 0.003"},
    metrics={"trials": 2, "best_val_accuracy": 0.9},
    tags={"pipeline.command": "python -m pipeline -m seed=0,1"},
    note="Best: **seed=0**",
    tables={"leaderboard.csv": "val_accuracy,state\n0.9,done\n,failed\n"},
    trials=[],
    draw=draw,
)


def within(monkeypatch, folder, **differs):
    """Make the next training a trial of the sweep with these differing values."""
    for variable, text in TrialContext(folder.name, differs).as_environment().items():
        monkeypatch.setenv(variable, text)


def plan(workspace, sweep, *trials):
    folder = workspace.sweeps / sweep
    folder.mkdir(parents=True)
    report = {"id": sweep, "trials": [{"key": f"key{n}", "differs": each} for n, each in enumerate(trials)]}
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def trial(workspace, number):
    return lay_out(Workspace(workspace.scratch / "trials" / f"key{number}"), workspace.model)


def text(workspace, run, path):
    return Path(client(workspace).download_artifacts(run.info.run_id, path)).read_text()


def parents_and_children(workspace):
    found = runs(workspace)
    return [run for run in found if PARENT not in run.data.tags], [
        run for run in found if PARENT in run.data.tags
    ]
