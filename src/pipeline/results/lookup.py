"""Runs as MLflow has them, found by what people call them."""

import csv
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.errors import PipelineError
from pipeline.tracking.evaluation_run import EVALUATION_TAG, REPORTS_TAG
from pipeline.tracking.mlflow_run import ID_TAG, LABEL_TAG, NAME_TAG, PARENT_TAG
from pipeline.tracking.run import SWEEP_TAG
from pipeline.tracking.store import open_store, search, unreachable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

TRIALS_SHOWN = 5  # of a sweep


@dataclass(frozen=True)
class Evaluated:
    """A run that was trained and evaluated."""

    name: str
    id: str  # MLflow's, of the training
    params: Mapping[str, str]
    metrics: Mapping[str, float]
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
    with _reading(tracking, workspace) as client:
        runs = _runs(client)
        found = {run.info.run_id: run for name in names for run in _meant(name, runs)}
        return [_evaluated(run, runs, client) for run in found.values()]


def training_id(name: str, tracking: TrackingSection, workspace: Workspace) -> str:
    """The pipeline's id of the training that `name` stands for, as in `look_up`.

    Raises:
        PipelineError: MLflow can't be reached, or the name stands for no training, or for several.
    """
    with _reading(tracking, workspace) as client:
        run = _find(name, [run for run in _runs(client) if ID_TAG in run.data.tags])
        return str(run.data.tags[ID_TAG])


@dataclass(frozen=True)
class LoggedModel:
    """A model as MLflow has it."""

    name: str  # of its run, or in the registry
    model_id: str
    location: str  # of its files
    metrics: dict[str, float]  # of its run
    version: str | None = None  # in the registry


def find_model(name: str, tracking: TrackingSection, workspace: Workspace) -> LoggedModel:
    """The model of the run that `name` stands for, as in `look_up`; of a sweep's name the best trial's.

    Raises:
        PipelineError: MLflow can't be reached, the name stands for no run or several, or it has no model.
    """
    with _reading(tracking, workspace) as client:
        run = _meant(name, _runs(client))[0]
        # An evaluation with other settings is of the model of its training.
        training = run.data.tags[PARENT_TAG] if EVALUATION_TAG in run.data.tags else run.info.run_id
        return _model_of(client, training, run)


def find_version(
    name: str, alias: str | None, version: str | None, tracking: TrackingSection, workspace: Workspace
) -> LoggedModel:
    """A version in the registry, by its number or by an alias.

    Raises:
        PipelineError: MLflow can't be reached, or has no such version, or no model of it.
    """
    from mlflow.exceptions import MlflowException

    with _reading(tracking, workspace) as client:
        try:
            if alias:
                found = client.get_model_version_by_alias(name, alias)
            else:
                found = client.get_model_version(name, version)
        except MlflowException as error:
            wanted = f"{name}@{alias}" if alias else f"{name}/{version}"
            raise PipelineError(f"MLflow's registry has no {wanted}: {error.message}") from None
        metrics = dict(client.get_run(found.run_id).data.metrics) if found.run_id else {}
        # A version has its own files, which need not be those of the run that it names.
        location = client.get_model_version_download_uri(name, found.version)
        model_id = hashlib.sha256(location.encode()).hexdigest()[:32]
        return LoggedModel(name, model_id, location, metrics, str(found.version))


def _model_of(client: "MlflowClient", run_id: str, shown: "Run") -> LoggedModel:
    """The model of a training, with the metrics of a run that shows its evaluation."""
    models = client.search_logged_models(
        [shown.info.experiment_id], filter_string=f"source_run_id = '{run_id}'", max_results=1
    )
    if not models:
        raise PipelineError(f"MLflow has no model of the run {shown.info.run_name}.")
    found = models[0]
    return LoggedModel(shown.info.run_name, found.model_id, found.artifact_location, dict(shown.data.metrics))


def download_model(
    run_id: str,
    tracking: TrackingSection,
    workspace: Workspace,
    folder: Path,
) -> Path:
    """The Keras model of a run, which is downloaded into `folder`.

    Raises:
        PipelineError: MLflow can't be reached, or has no model of this run.
    """
    with _reading(tracking, workspace) as client:
        found = _model_of(client, run_id, client.get_run(run_id))
        # Not by mlflow.keras: it would import what it needs not, and read the file with less distrust.
        from mlflow.artifacts import download_artifacts

        return Path(
            download_artifacts(artifact_uri=f"{found.location}/data/model.keras", dst_path=str(folder))
        )


def download_run(
    name: str, tracking: TrackingSection, workspace: Workspace, folder: Path
) -> tuple[str, Mapping[str, str], Workspace]:
    """What MLflow holds of a training and its evaluation, as the stages wrote it.

    Args:
        name: of a run, as in `look_up`, or of a registered version: NAME@ALIAS or NAME/NUMBER.
        tracking: says where MLflow is.
        workspace: the repository's.
        folder: where to put it.

    Returns:
        The run's name in MLflow; its tags; a workspace in `folder` with params.yaml, models/run.json and
        model.keras, reports/metrics.json and probabilities.npy, and the occasions, as far as MLflow has them.

    Raises:
        PipelineError: MLflow can't be reached, or `name` stands for no training, or for several.
    """
    from mlflow.artifacts import download_artifacts

    files = Workspace(folder / "run")
    with _reading(tracking, workspace) as client:
        run_id = _registered(name, client)
        trainings = [run for run in _runs(client) if _is_training(run)]
        run = client.get_run(run_id) if run_id else _find(name, trainings)
        held = {item.path for item in client.list_artifacts(run.info.run_id)}
        if "run.json" not in held:
            raise PipelineError(
                f"MLflow's run {run.info.run_name} has no run.json: it did not end, or it is older than that."
            )
        places = {
            "config/params.yaml": files.params,
            "run.json": files.run,
            "metrics.json": files.metrics,
            "probabilities.npy": files.probabilities,
            "occasions": files.scratch / "occasions" / run.data.tags[ID_TAG],
        }
        for path, place in places.items():
            if path.partition("/")[0] in held:
                place.parent.mkdir(parents=True, exist_ok=True)
                uri = f"runs:/{run.info.run_id}/{path}"
                Path(download_artifacts(artifact_uri=uri, dst_path=str(folder))).rename(place)
    download_model(run.info.run_id, tracking, workspace, folder).rename(files.model)
    return run.info.run_name, run.data.tags, files


def _is_training(run: "Run") -> bool:
    return ID_TAG in run.data.tags and EVALUATION_TAG not in run.data.tags


def _registered(name: str, client: "MlflowClient") -> str | None:
    """The run of a registered version, by NAME@ALIAS or NAME/NUMBER; None: `name` is no such thing."""
    model, alias, version = (*name.partition("@")[::2], "")
    if not alias:
        model, _, version = name.rpartition("/")
    if not (model and (alias or version.isdecimal())):
        return None
    from mlflow.exceptions import MlflowException

    try:
        found = (
            client.get_model_version_by_alias(model, alias)
            if alias
            else client.get_model_version(model, version)
        )
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise PipelineError(f"MLflow has no registered model {name}: {error.message}") from None
        raise
    return str(found.run_id)


@contextmanager
def _reading(tracking: TrackingSection, workspace: Workspace) -> "Iterator[MlflowClient]":
    """A client of the store, whose failures are sentences."""
    try:
        yield open_store(tracking, workspace).client
    except PipelineError:
        raise
    except Exception as error:
        raise PipelineError(unreachable(error, tracking, workspace, "can't be read")) from error


def _runs(client: "MlflowClient") -> "list[Run]":
    """The trainings, evaluations and sweeps, the oldest first."""
    runs = search(client, f"tags.`{ID_TAG}` LIKE '%'") + search(client, f"tags.`{SWEEP_TAG}` LIKE '%'")
    return sorted(runs, key=lambda run: run.info.start_time)


def _meant(name: str, runs: "Sequence[Run]") -> "list[Run]":
    """The run that `name` stands for, or the best trials of the sweep."""
    run = _find(name, runs)
    if SWEEP_TAG not in run.data.tags:
        return [run]
    member = f"{SWEEP_TAG}.{run.data.tags[SWEEP_TAG]}"
    trials = [other for other in runs if member in other.data.tags and REPORTS_TAG in other.data.tags]
    if len(trials) < 2:
        raise PipelineError(f"The sweep {run.info.run_name} has {len(trials)} evaluated trials to compare.")
    return sorted(trials, key=lambda trial: -trial.data.metrics.get("best_val_accuracy", 0))[:TRIALS_SHOWN]


def _find(wanted: str, runs: "Sequence[Run]") -> "Run":
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
    with tempfile.TemporaryDirectory() as folder:
        path = Path(client.download_artifacts(run.info.run_id, "predictions.csv", folder))
        with path.open(encoding="utf-8", newline="") as file:
            predictions = tuple((row["label"], row["predicted"]) for row in csv.DictReader(file))
    training = run
    if EVALUATION_TAG in run.data.tags:
        # What it does not say itself is as its training says.
        parent = run.data.tags.get(PARENT_TAG)
        training = next((other for other in runs if other.info.run_id == parent), run)
    return Evaluated(
        name,
        training.info.run_id,
        training.data.params | run.data.params,
        training.data.metrics | run.data.metrics,
        training.data.tags | run.data.tags,
        predictions,
    )
