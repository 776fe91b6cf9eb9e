"""Runs as MLflow has them, found by what people call them."""

import csv
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
from pipeline.tracking.run import ID_TAG, REPORTS_TAG
from pipeline.tracking.store import open_store, search, unreachable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


@dataclass(frozen=True)
class Evaluated:
    """A run that was trained and evaluated."""

    name: str
    id: str  # MLflow's
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    predictions: tuple[tuple[str, str], ...]  # per test image, its label and what it was taken for

    @property
    def right(self) -> NDArray[np.bool_]:
        """Bool (n,), for each test image whether it was taken for what it is."""
        return np.array([label == predicted for label, predicted in self.predictions], bool)


def look_up(names: Sequence[str], tracking: TrackingSection, workspace: Workspace) -> list[Evaluated]:
    """The runs that `names` stand for: each a run's name or id, or the unique beginning of one.

    Raises:
        PipelineError: MLflow can't be reached, or a name stands for no evaluated run, or for several.
    """
    with _reading(tracking, workspace) as client:
        runs = search(client, f"tags.`{ID_TAG}` LIKE '%'")
        return [_evaluated(_find(name, runs), client) for name in names]


def download_model(run_id: str, tracking: TrackingSection, workspace: Workspace, folder: Path) -> Path:
    """The model file of a run, which is downloaded into `folder`.

    Raises:
        PipelineError: MLflow can't be reached, or has no model of this run.
    """
    with _reading(tracking, workspace) as client:
        run = client.get_run(run_id)
        models = client.search_logged_models(
            [run.info.experiment_id], filter_string=f"source_run_id = '{run_id}'", max_results=1
        )
        if not models:
            raise PipelineError(f"MLflow has no model of the run {run.info.run_name}.")
        # Not by mlflow.keras: it would import what it needs not, and read the file with less distrust.
        from mlflow.artifacts import download_artifacts

        return Path(
            download_artifacts(
                artifact_uri=f"{models[0].artifact_location}/data/model.keras", dst_path=str(folder)
            )
        )


@contextmanager
def _reading(tracking: TrackingSection, workspace: Workspace) -> "Iterator[MlflowClient]":
    """A client of the store, whose failures are sentences."""
    try:
        yield open_store(tracking, workspace).client
    except PipelineError:
        raise
    except Exception as error:
        raise PipelineError(unreachable(error, tracking, workspace, "can't be read")) from error


def _find(wanted: str, runs: "Sequence[Run]") -> "Run":
    exact = [run for run in runs if wanted in _names(run)]
    found = exact or [run for run in runs if any(name.startswith(wanted) for name in _names(run))]
    if not found:
        latest = ", ".join(run.info.run_name for run in runs[:-6:-1]) or "none"
        raise PipelineError(f"MLflow has no run {wanted!r}; the latest are: {latest}.")
    if len(found) > 1:
        several = ", ".join(f"{run.info.run_name} ({run.info.run_id})" for run in found[:-6:-1])
        raise PipelineError(f"{wanted!r} may be any of {len(found)} runs: {several}. Name it by its id.")
    return found[0]


def _names(run: "Run") -> tuple[str, str, str]:
    return run.info.run_name, run.info.run_id, run.data.tags[ID_TAG]


def _evaluated(run: "Run", client: "MlflowClient") -> Evaluated:
    name = run.info.run_name
    if REPORTS_TAG not in run.data.tags:
        raise PipelineError(f"The run {name} ({run.info.status}) was not evaluated: it has no results.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(client.download_artifacts(run.info.run_id, "predictions.csv", folder))
        with path.open(encoding="utf-8", newline="") as file:
            predictions = tuple((row["label"], row["predicted"]) for row in csv.DictReader(file))
    # MLflow's latest values are those of the last epoch; the model has the weights of the best one.
    best = int(run.data.tags["pipeline.best_epoch"])
    metrics = dict(run.data.metrics)
    for key in metrics.keys() & {"val_accuracy", "val_loss"}:
        history = client.get_metric_history(run.info.run_id, key)
        metrics[key] = next(metric.value for metric in history if metric.step == best)
    return Evaluated(name, run.info.run_id, run.data.params, metrics, run.data.tags, predictions)
