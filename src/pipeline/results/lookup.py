"""Runs as MLflow has them, found by what people call them."""

import csv
import tempfile
from collections.abc import Mapping, Sequence
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
    try:
        client = open_store(tracking, workspace).client
        runs = search(client, f"tags.`{ID_TAG}` LIKE '%'")
        return [_evaluated(_find(name, runs), client) for name in names]
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
    return Evaluated(name, run.data.params, metrics, run.data.tags, predictions)
