"""Find runs in MLflow by their names or ids, and read their results."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts.history import read_history
from pipeline.artifacts.workspace import Workspace, sha256
from pipeline.config.schema import TrackingSection
from pipeline.console import count
from pipeline.errors import PipelineError
from pipeline.results.predictions import Predictions, read_predictions
from pipeline.tracking.evaluation_run import REPORTS_TAG
from pipeline.tracking.failures import telling_failures
from pipeline.tracking.mlflow_run import (
    EVALUATION_TAG,
    ID_TAG,
    LABEL_TAG,
    NAME_TAG,
    PARENT_TAG,
    TEST_TAG,
    unless_missing,
)
from pipeline.tracking.run import SWEEP_TAG
from pipeline.tracking.store import open_store, restore_command, search
from pipeline.tracking.stored import recorded_digests

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

MAX_DIGITS = 18  # of a version's number; SQLite has no larger ones
TRIALS_SHOWN = 5  # how many trials a sweep stands for
TEST_PINS = "data.sha256.test_"  # begins the keys that pin the test images in a configuration


class UnknownRunError(PipelineError):
    """A name stands for no run, except perhaps for one that was deleted in MLflow."""

    def __init__(self, wanted: str, message: str) -> None:
        super().__init__(message)
        self.wanted = wanted


@dataclass(frozen=True)
class Evaluated:
    """A run that was trained and evaluated."""

    name: str
    id: str  # MLflow's id of the training
    params: Mapping[str, str]
    metrics: Mapping[str, float]  # those of the training come from the epoch whose weights were kept
    tags: Mapping[str, str]
    predictions: Predictions


def look_up(names: Sequence[str], tracking: TrackingSection, workspace: Workspace) -> list[Evaluated]:
    """Find the runs that `names` stand for, each once.

    A name is the current or the original name of a run in MLflow, its id, or the unique beginning of one of
    these. The name of a sweep stands for its best trials by validation accuracy.

    Raises:
        PipelineError: If MLflow can't be reached, or a name stands for no evaluated run or for several runs.
    """
    with reading_store(tracking, workspace) as client:
        runs = all_runs(client)
        selected = {run.info.run_id: run for name in names for run in resolve(name, runs)}
        return [_evaluated(run, runs, client) for run in selected.values()]


def training_id(name: str, tracking: TrackingSection, workspace: Workspace) -> str:
    """Return the pipeline's id of the training that `name` stands for, as in `look_up`.

    Raises:
        PipelineError: If MLflow can't be reached, or the name stands for no training or for several.
    """
    with reading_store(tracking, workspace) as client:
        return str(resolve_one(name, all_runs(client)).data.tags[ID_TAG])


def is_training(run: "Run") -> bool:
    """Return whether the run is a training, not a sweep or an evaluation with other settings."""
    return ID_TAG in run.data.tags and EVALUATION_TAG not in run.data.tags


def registered(name: str, client: "MlflowClient") -> "ModelVersion | None":
    """Return the version of a registered model by NAME@ALIAS or NAME/NUMBER, or None if `name` is neither.

    Raises:
        PipelineError: If MLflow has no such version.
    """
    model, alias, version = (*name.partition("@")[::2], "")
    if not alias:
        model, _, version = name.rpartition("/")
    if not (model and (alias or (version.isdecimal() and len(version) <= MAX_DIGITS))):
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
def reading_store(tracking: TrackingSection, workspace: Workspace) -> "Iterator[MlflowClient]":
    """Open a client of the store, and turn its failures into a PipelineError; also see `telling_deleted`."""
    with telling_failures(tracking, workspace, "can't be read"):
        client = open_store(tracking, workspace).client
        with telling_deleted(client, tracking, workspace):
            yield client


@contextmanager
def telling_deleted(
    client: "MlflowClient", tracking: TrackingSection, workspace: Workspace
) -> Iterator[None]:
    """If a run that is unknown inside the `with` was deleted in MLflow, say so, and how to restore it."""
    try:
        yield
    except UnknownRunError as error:
        with suppress(UnknownRunError):
            run = find(error.wanted, all_runs(client, deleted=True))
            restore = restore_command(run.info.run_id, tracking, workspace)
            raise PipelineError(
                f"The run {run.info.run_name} was deleted in MLflow: `{restore}` brings it back."
            ) from None
        raise


def all_runs(client: "MlflowClient", deleted: bool = False) -> "list[Run]":
    """Return all trainings, evaluations and sweeps, oldest first: the deleted ones or the others."""
    runs = [run for tag in (ID_TAG, SWEEP_TAG) for run in search(client, f"tags.`{tag}` LIKE '%'", deleted)]
    return sorted(runs, key=lambda run: run.info.start_time)


def run_of(version: "ModelVersion", client: "MlflowClient") -> "Run":
    """Return the run whose model a registered version is.

    Raises:
        PipelineError: If MLflow does not have it any more, or never had.
    """
    run = unless_missing(lambda: client.get_run(version.run_id)) if version.run_id else None
    if run is None:
        name = version.tags.get(NAME_TAG) or version.run_id or "unknown"
        raise PipelineError(
            f"MLflow no longer has the run of version {version.version} of {version.name} ({name}). A "
            "sweep's command, or `python -m pipeline` with the run's values, gets it from DVC's cache; "
            "`pipeline promote` then registers its model as a new version."
        )
    return run


def resolve(name: str, runs: "Sequence[Run]") -> "list[Run]":
    """Return the run that `name` stands for, or the best trials if that is a sweep.

    Raises:
        PipelineError: If `name` stands for no run, for several, or for a sweep with fewer than two
            evaluated trials.
    """
    run = find(name, runs)
    if SWEEP_TAG not in run.data.tags:
        return [run]
    trials = _trials(run, runs)
    if len(trials) < 2:
        found = count(len(trials), "evaluated trial")
        raise PipelineError(f"The sweep {run.info.run_name} has {found}: a comparison needs two.")
    return trials[:TRIALS_SHOWN]


def resolve_one(name: str, runs: "Sequence[Run]") -> "Run":
    """Return the run that `name` stands for, or the best trial if that is a sweep.

    Raises:
        PipelineError: If `name` stands for no run, for several, or for a sweep without evaluated trials.
    """
    run = find(name, runs)
    if SWEEP_TAG not in run.data.tags:
        return run
    if not (trials := _trials(run, runs)):
        raise PipelineError(f"The sweep {run.info.run_name} has no evaluated trial.")
    return trials[0]


def without_evaluations(runs: "Sequence[Run]") -> "list[Run]":
    """Return the trainings and sweeps, without the evaluations of trainings with other settings."""
    return [run for run in runs if EVALUATION_TAG not in run.data.tags]


def _trials(sweep: "Run", runs: "Sequence[Run]") -> "list[Run]":
    """Return the evaluated trials of a sweep, the one with the highest validation accuracy first."""
    member = f"{SWEEP_TAG}.{sweep.data.tags[SWEEP_TAG]}"
    trials = [run for run in runs if member in run.data.tags and REPORTS_TAG in run.data.tags]
    return sorted(trials, key=lambda trial: -trial.data.metrics.get("best_val_accuracy", 0))


def find(wanted: str, runs: "Sequence[Run]") -> "Run":
    """Find the one run whose name or id is `wanted`, or else begins with it.

    Raises:
        UnknownRunError: If there is no such run.
        PipelineError: If there is more than one.
    """
    if not wanted.strip():
        # Everything begins with it: an unset variable of a script would stand for the only run.
        raise PipelineError("The name of the run is empty.")
    matches = [run for run in runs if wanted in _names(run)]
    if not matches:
        matches = [run for run in runs if any(name.startswith(wanted) for name in _names(run))]
        # The name of an evaluation begins with that of its training: the training is preferred.
        matches = [run for run in matches if EVALUATION_TAG not in run.data.tags] or matches
    if not matches:
        latest = ", ".join(run.info.run_name for run in runs[:-6:-1]) or "none"
        raise UnknownRunError(wanted, f"MLflow has no run {wanted!r}; the latest are: {latest}.")
    if len(matches) > 1:
        several = ", ".join(f"{run.info.run_name} ({run.info.run_id})" for run in matches[:-6:-1])
        raise PipelineError(
            f"{wanted!r} may be any of {len(matches)} runs: {several}. Write more of its name, or its id."
        )
    return matches[0]


def _names(run: "Run") -> set[str]:
    tags = run.data.tags
    ids = {run.info.run_id} if EVALUATION_TAG in tags else {run.info.run_id, tags.get(ID_TAG)}
    return {name for name in {run.info.run_name, tags.get(NAME_TAG), tags.get(LABEL_TAG), *ids} if name}


def _evaluated(run: "Run", runs: "Sequence[Run]", client: "MlflowClient") -> Evaluated:
    name = run.info.run_name
    if REPORTS_TAG not in run.data.tags:
        raise PipelineError(f"The run {name} ({run.info.status}) was not evaluated: it has no results.")
    with artifact(run, "predictions.csv", client) as path:
        predictions = read_predictions(path)
    training = run
    if EVALUATION_TAG in run.data.tags:
        # What the evaluation does not record itself is taken from its training.
        parent = run.data.tags.get(PARENT_TAG)
        training = next((other for other in runs if other.info.run_id == parent), run)
    params = training.data.params
    if run.data.tags.get(TEST_TAG) != training.data.tags.get(TEST_TAG):
        # Not the pins of the test images: the evaluation used different ones.
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
    """Read the metrics of the epoch whose weights were kept; MLflow's own are those of the last epoch."""
    with artifact(training, "history.csv", client) as path:
        best = asdict(read_history(path).best)
    return {key: value for key, value in best.items() if key != "epoch" and value is not None}


@contextmanager
def artifact(run: "Run", name: str, client: "MlflowClient") -> Iterator[Path]:
    """Download an artifact of the run into a temporary folder.

    Raises:
        PipelineError: If MLflow no longer has it as it was sent.
    """
    with tempfile.TemporaryDirectory() as folder:
        available = client.list_artifacts(run.info.run_id, name.rpartition("/")[0] or None)
        if any(item.path == name for item in available):
            path = Path(client.download_artifacts(run.info.run_id, name, folder))
            digest = sha256(path)
            if recorded_digests(run.data.tags).get(name, digest) == digest:
                yield path
                return
        raise PipelineError(
            f"{name} of the run {run.info.run_name} is missing or damaged in MLflow: `pipeline verify "
            "--repair` restores it."
        )
