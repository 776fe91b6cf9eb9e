"""A sweep and its trials, to be sent to MLflow."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from harness import client, config, lay_out, runs

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.processes.context import TrialContext
from pipeline.results.publish import publish
from pipeline.results.report import Report, Trial

PARENT = "mlflow.parentRunId"


SWEEP = Report(
    id="3f2a" * 4,
    name="sweep-smoke-3f2a",
    command=("seed=0,1",),
    sweeper="grid",
    launcher="joblib",
    objectives=("val_accuracy",),
    space={"seed": ["0", "1"]},
    tracking=config().tracking.model_dump(mode="json"),
    start=1_700_000_000_000,
)


def sent(sweep, folder, workspace):
    """Publish the sweep, and return the id of its run; None if MLflow already showed it."""
    return publish(sweep, folder, workspace).rpartition(": ")[2] or None


def of(*trials, **changes):
    """SWEEP with these trials."""
    return replace(SWEEP, trials=trials, **changes)


def known(number, run_id, **differs):
    """A trial of the sweep whose training was completed before."""
    return Trial(number, f"key{number}", differs=differs or {"seed": "0"}, state="known", run_id=run_id)


def trained_in(folder, run_id):
    """Note in the folder of the sweep that it trained this run."""
    write_text(folder / "trials" / "key.json", json.dumps(asdict(known(0, run_id))))


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
