"""Runs as MLflow has them, found by what people call them."""

import csv
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.history import read_history
from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.errors import PipelineError
from pipeline.tracking.evaluation_run import EVALUATION_TAG, REPORTS_TAG
from pipeline.tracking.mlflow_run import ID_TAG, LABEL_TAG, NAME_TAG, PARENT_TAG, TEST_TAG
from pipeline.tracking.run import SWEEP_TAG
from pipeline.tracking.store import open_store, search, unreachable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

TRIALS_SHOWN = 5  # of a sweep
TEST_PINS = "data.sha256.test_"  # the keys of the test images that a configuration names


@dataclass(frozen=True)
class Evaluated:
    """A run that was trained and evaluated."""

    name: str
    id: str  # MLflow's, of the training
    params: Mapping[str, str]
    metrics: Mapping[str, float]  # those of the training are of the epoch whose weights the model has
    tags: Mapping[str, str]
    predictions: tuple[tuple[str, str], ...]  # per test image, its label and what it was taken for

    @property
    def right(self) -> NDArray[np.bool_]:
        """Bool (n,), for each test image whether it was taken for what it is."""
        return np.array([label == predicted for label, predicted in self.predictions], bool)


def look_up(names: Sequence[str], tracking: TrackingSection, workspace: Workspace) -> list[Evaluated]:
    """The runs that `names` stand for, each once.

    A name is a run's in MLflow, now or when it was made, or its id, or the unique beginning of one. A
    sweep's stands for the best of its trials by validation accuracy.

    Raises:
        PipelineError: MLflow can't be reached, or a name stands for no evaluated run, or for several.
    """
    with reading(tracking, workspace) as client:
        runs = all_runs(client)
        found = {run.info.run_id: run for name in names for run in meant(name, runs)}
        return [_evaluated(run, runs, client) for run in found.values()]


def training_id(name: str, tracking: TrackingSection, workspace: Workspace) -> str:
    """The pipeline's id of the training that `name` stands for, as in `look_up`.

    Raises:
        PipelineError: MLflow can't be reached, or the name stands for no training, or for several.
    """
    with reading(tracking, workspace) as client:
        run = find(name, [run for run in all_runs(client) if ID_TAG in run.data.tags])
        return str(run.data.tags[ID_TAG])


def is_training(run: "Run") -> bool:
    """Whether it is neither an evaluation with other settings nor a sweep."""
    return ID_TAG in run.data.tags and EVALUATION_TAG not in run.data.tags


def registered(name: str, client: "MlflowClient") -> "ModelVersion | None":
    """The version of a registered model by NAME@ALIAS or NAME/NUMBER; None: `name` is no such thing."""
    model, alias, version = (*name.partition("@")[::2], "")
    if not alias:
        model, _, version = name.rpartition("/")
    if not (model and (alias or version.isdecimal())):
        return None
    from mlflow.exceptions import MlflowException

    try:
        if alias:
            return client.get_model_version_by_alias(model, alias)
        return client.get_model_version(model, version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise PipelineError(f"MLflow has no registered model {name}: {error.message}") from None
        raise


@contextmanager
def reading(tracking: TrackingSection, workspace: Workspace) -> "Iterator[MlflowClient]":
    """A client of the store, whose failures are sentences."""
    try:
        yield open_store(tracking, workspace).client
    except PipelineError:
        raise
    except Exception as error:
        raise PipelineError(unreachable(error, tracking, workspace, "can't be read")) from error


def all_runs(client: "MlflowClient") -> "list[Run]":
    """The trainings, evaluations and sweeps, the oldest first."""
    runs = search(client, f"tags.`{ID_TAG}` LIKE '%'") + search(client, f"tags.`{SWEEP_TAG}` LIKE '%'")
    return sorted(runs, key=lambda run: run.info.start_time)


def meant(name: str, runs: "Sequence[Run]") -> "list[Run]":
    """The run that `name` stands for, or the best trials of the sweep."""
    run = find(name, runs)
    if SWEEP_TAG not in run.data.tags:
        return [run]
    member = f"{SWEEP_TAG}.{run.data.tags[SWEEP_TAG]}"
    trials = [other for other in runs if member in other.data.tags and REPORTS_TAG in other.data.tags]
    if len(trials) < 2:
        raise PipelineError(f"The sweep {run.info.run_name} has {len(trials)} evaluated trials to compare.")
    return sorted(trials, key=lambda trial: -trial.data.metrics.get("best_val_accuracy", 0))[:TRIALS_SHOWN]


def find(wanted: str, runs: "Sequence[Run]") -> "Run":
    """The one run that `wanted` is a name or an id of, or the beginning of one.

    Raises:
        PipelineError: there is none, or there are several.
    """
    found = [run for run in runs if wanted in _names(run)]
    if not found:
        found = [run for run in runs if any(name.startswith(wanted) for name in _names(run))]
        # The names of an evaluation's runs begin with their training's.
        found = [run for run in found if EVALUATION_TAG not in run.data.tags] or found
    if not found:
        latest = ", ".join(run.info.run_name for run in runs[:-6:-1]) or "none"
        raise PipelineError(f"MLflow has no run {wanted!r}; the latest are: {latest}.")
    if len(found) > 1:
        several = ", ".join(f"{run.info.run_name} ({run.info.run_id})" for run in found[:-6:-1])
        raise PipelineError(f"{wanted!r} may be any of {len(found)} runs: {several}. Name it by its id.")
    return found[0]


def _names(run: "Run") -> set[str]:
    tags = run.data.tags
    ids = {run.info.run_id} if EVALUATION_TAG in tags else {run.info.run_id, tags.get(ID_TAG)}
    return {name for name in {run.info.run_name, tags.get(NAME_TAG), tags.get(LABEL_TAG), *ids} if name}


def _evaluated(run: "Run", runs: "Sequence[Run]", client: "MlflowClient") -> Evaluated:
    name = run.info.run_name
    if REPORTS_TAG not in run.data.tags:
        raise PipelineError(f"The run {name} ({run.info.status}) was not evaluated: it has no results.")
    with _artifact(run, "predictions.csv", client) as path, path.open(encoding="utf-8", newline="") as file:
        predictions = tuple((row["label"], row["predicted"]) for row in csv.DictReader(file))
    training = run
    if EVALUATION_TAG in run.data.tags:
        # What it does not say itself is as its training says.
        parent = run.data.tags.get(PARENT_TAG)
        training = next((other for other in runs if other.info.run_id == parent), run)
    params = training.data.params
    if run.data.tags.get(TEST_TAG) != training.data.tags.get(TEST_TAG):
        # But for its test images: those that the training's configuration pins are others.
        params = {key: value for key, value in params.items() if not key.startswith(TEST_PINS)}
    return Evaluated(
        name,
        training.info.run_id,
        params | run.data.params,
        training.data.metrics | run.data.metrics | _of_best_epoch(training, client),
        training.data.tags | run.data.tags,
        predictions,
    )


def _of_best_epoch(training: "Run", client: "MlflowClient") -> dict[str, float]:
    """The figures of the epoch whose weights the model has: as a metric MLflow has them of the last one."""
    with _artifact(training, "history.csv", client) as path:
        best = asdict(read_history(path).best)
    return {key: value for key, value in best.items() if key != "epoch" and value is not None}


@contextmanager
def _artifact(run: "Run", name: str, client: "MlflowClient") -> Iterator[Path]:
    """A copy of a file of the run."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(client.download_artifacts(run.info.run_id, name, folder))
