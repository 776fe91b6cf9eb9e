"""Check that the workspace's run, MLflow's runs and the registry agree with each other."""

import csv
import functools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts.onnx_file import load
from pipeline.artifacts.workspace import Workspace, sha256
from pipeline.config.schema import TrackingSection
from pipeline.errors import PipelineError
from pipeline.registry.journal import BrokenError, RenamedError, check_copies, folder_of
from pipeline.registry.registered import deviation, is_name
from pipeline.registry.versions import MODEL_FILE_TAG, Versions, is_of
from pipeline.results.lookup import run_of
from pipeline.results.predictions import read_predictions
from pipeline.tracking.evaluation_run import REPORTS_TAG, results_in
from pipeline.tracking.identity import read_run
from pipeline.tracking.mlflow_run import ID_TAG, logged_model_of, unless_missing
from pipeline.tracking.store import open_store, restore_command, search
from pipeline.tracking.stored import Stored, fetch
from pipeline.verification.problems import Problem

if TYPE_CHECKING:
    from mlflow import MlflowClient

# What reading a file raises if any byte of it may have changed.
_DAMAGE = (PipelineError, OSError, LookupError, TypeError, ValueError, ArithmeticError, csv.Error)


def check_run(workspace: Workspace) -> list[Problem]:
    """Check that run.json, the two model files and the metrics in the workspace belong together."""
    if not workspace.run.exists():
        return []
    try:
        run = read_run(workspace.run)
        result = run["result"]
        weights = str(result["weights_sha256"])
    except _DAMAGE as error:
        return [Problem("run", f"models/run.json is damaged: {error}", workspace.run)]
    problems = []
    for path, key in ((workspace.model, "model_sha256"), (workspace.onnx, "onnx_sha256")):
        if path.exists() and sha256(path) != result.get(key):
            text = (
                f"models/{path.name} is not the model of the run {run['name']}, which models/run.json names."
            )
            problems.append(Problem("run", text, path))
    if workspace.onnx.exists() and not problems:
        about = load(workspace.onnx).description
        if (about.run.id, about.weights_sha256) != (run["id"], weights):
            text = f"models/model.onnx belongs to the run {about.run.name}, not to {run['name']}."
            problems.append(Problem("run", text, workspace.onnx))
    return problems + list(_check_metrics(workspace, weights))


def _check_metrics(workspace: Workspace, weights: str) -> Iterator[Problem]:
    if not workspace.metrics.exists():
        return
    try:
        metrics = json.loads(workspace.metrics.read_text(encoding="utf-8"))
        if metrics["weights_sha256"] != weights:
            text = "reports/metrics.json is about other weights than those in models/run.json."
            yield Problem("run", text, workspace.metrics)
        if workspace.predictions.exists():
            right = [label == predicted for label, predicted in read_predictions(workspace.predictions)]
            if abs(sum(right) / len(right) - metrics["test_accuracy"]) > 1e-9:
                text = "reports/predictions.csv and reports/metrics.json have different accuracies."
                yield Problem("run", text, workspace.predictions)
    except _DAMAGE as error:
        yield Problem("run", f"reports/ is damaged ({error!r}).", workspace.metrics)


def check_mlflow(
    tracking: TrackingSection, workspace: Workspace, folder: Path, everything: bool
) -> tuple[list[Problem], int]:
    """Return what in MLflow is not as recorded, byte for byte, and the number of files that were hashed.

    `everything` downloads the files of all runs, and not only those of the workspace's run.

    Raises:
        MlflowException: If the store can't be reached.
    """
    client = open_store(tracking, workspace).client
    own = _own_id(workspace)
    problems: list[Problem] = []
    checked = 0
    for number, run in enumerate(search(client, f"tags.`{ID_TAG}` LIKE '%'")):
        remote = everything or run.data.tags[ID_TAG] == own
        stored = fetch(client, run, folder / str(number), remote)
        checked += stored.checked
        problems += [
            Problem("mlflow", f"{found.text}.", found.path, found.name, found.owner, found.digest)
            for found in stored.broken
        ]
        if stored.lost:
            problems.append(Problem("mlflow", stored.lost, run=run.info.run_id))
        problems += _metrics_shown(stored)
    return problems, checked


def _own_id(workspace: Workspace) -> str | None:
    """Return the id of the workspace's run, or None if it has none; `check_run` reports a damaged one."""
    try:
        return str(read_run(workspace.run)["id"])
    except PipelineError:
        return None


def _metrics_shown(stored: Stored) -> Iterator[Problem]:
    """Find metrics of an evaluation that differ between MLflow and the file of the run."""
    run, path = stored.run, stored.folder / "metrics.json"
    # A damaged file proves nothing, nor does a run whose reports have not been sent completely.
    if REPORTS_TAG not in run.data.tags or not path.is_file() or "metrics.json" in stored.broken_names:
        return
    for key, value in results_in(path).items():
        shown = run.data.metrics.get(key)
        if shown is None or not math.isclose(shown, value, rel_tol=1e-9):
            said = "missing" if shown is None else f"{shown:g}"
            what = f"{key} of the run {run.info.run_name}"
            text = f"{what} is {said} in MLflow, but {value:g} in its metrics.json."
            yield Problem("mlflow", text, name=key, run=run.info.run_id, value=value)


def check_registry(tracking: TrackingSection, workspace: Workspace) -> list[Problem]:
    """Check that registered versions are the models of their runs, and that aliases agree with the journals.

    Raises:
        MlflowException: If the store can't be reached.
    """
    client = open_store(tracking, workspace).client
    # No journal has another name.
    names = {model.name for model in client.search_registered_models() if is_name(model.name)}
    names |= {path.stem for path in folder_of(tracking, workspace).glob("*.jsonl")}
    problems: list[Problem] = []
    for name in sorted(names):
        versions = Versions(client, name)
        problems += _versions(client, versions)
        try:
            entries = check_copies(tracking, workspace, name)
        except RenamedError:
            continue  # The journal belongs to the new name.
        except BrokenError as error:
            problems.append(Problem("registry", str(error), name=name))
            continue
        for alias, entry in {entry.alias: entry for entry in entries}.items():
            if text := deviation(entry, versions):
                # Without a name, which would tell `repair` to restore the journal: that is not damaged.
                problems.append(Problem("registry", text))
            found = versions.at(alias)
            run_id = found.run_id if found else None
            run = unless_missing(functools.partial(client.get_run, run_id)) if run_id else None
            if run and run.info.lifecycle_stage == "deleted":
                restore = restore_command(run.info.run_id, tracking, workspace)
                text = (
                    f"{alias} of {name} belongs to the run {run.info.run_name}, which was deleted in MLflow: "
                    f"`{restore}` restores it."
                )
                problems.append(Problem("registry", text))
    return problems


def _versions(client: "MlflowClient", versions: Versions) -> Iterator[Problem]:
    for version in versions.all():
        what = f"Version {version.version} of {versions.name}"
        if MODEL_FILE_TAG not in version.tags:
            continue  # It was not registered by `pipeline promote`.
        try:
            run = run_of(version, client)
        except PipelineError as error:
            yield Problem("registry", str(error))
            continue
        model = logged_model_of(client, run.info.experiment_id, version.run_id)
        same = version.tags[MODEL_FILE_TAG] == run.data.tags.get(MODEL_FILE_TAG)
        if not same or not is_of(version, model):
            text = (
                f"{what} is not the model of its run {run.info.run_name}: if it is in use, `pipeline "
                "promote` registers that as a new version; delete this one in MLflow."
            )
            yield Problem("registry", text)
