"""Download from MLflow what it holds of a run: its model, its model card and the files of the stages."""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.artifacts.workspace import Workspace
from pipeline.config.plain_yaml import load_yaml
from pipeline.config.schema import TrackingSection
from pipeline.errors import PipelineError
from pipeline.results.lookup import (
    all_runs,
    artifact,
    reading_store,
    registered,
    resolve_one,
    run_of,
    without_evaluations,
)
from pipeline.tracking.evaluation_run import REPORTS_TAG
from pipeline.tracking.mlflow_run import EVALUATION_TAG, ID_TAG, PARENT_TAG, logged_model_of, unless_missing
from pipeline.tracking.stored import without_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_CARD = "model_card.md"


@dataclass(frozen=True)
class LoggedModel:
    """A model in MLflow."""

    name: str  # the name of its run, or its name in the registry
    model_id: str
    location: str  # the URI of its files
    run_id: str  # the id of the run that shows its evaluation, or ""
    metrics: Mapping[str, float]  # the metrics of that run
    reports: str  # the digest of the evaluation's reports, or "" if it was not evaluated
    version: str | None = None  # its version in the registry, if it was found there


@dataclass(frozen=True)
class Training:
    """A training in MLflow."""

    name: str
    id: str  # the pipeline's id
    values: Mapping[str, Any]  # the content of params.yaml
    metrics: Mapping[str, float]


def find_training(name: str, tracking: TrackingSection, workspace: Workspace) -> Training:
    """Find the training that `name` stands for, as in `look_up`.

    Raises:
        PipelineError: If MLflow can't be reached, has no such training or several, or not its configuration.
    """
    with reading_store(tracking, workspace) as client:
        run = resolve_one(name, without_evaluations(all_runs(client)))
        with artifact(run, "config/params.yaml", client) as path:
            values = values_in(path, run.info.run_name)
        return Training(run.info.run_name, run.data.tags[ID_TAG], values, dict(run.data.metrics))


def values_in(path: Path, run: str) -> dict[str, Any]:
    """Read the params.yaml that MLflow has of a run.

    Raises:
        PipelineError: If it is missing or damaged.
    """
    try:
        values = load_yaml(path.read_bytes())
    except (OSError, yaml.YAMLError):
        values = None
    if not isinstance(values, dict):
        raise PipelineError(
            f"MLflow's run {run} holds no configuration that can be read: `pipeline verify "
            "--repair` restores it."
        )
    return values


def find_model(name: str, tracking: TrackingSection, workspace: Workspace) -> LoggedModel:
    """Find the model of the run or of a sweep's best trial that `name` stands for, as in `look_up`.

    The name may also be that of a registered version: NAME@ALIAS or NAME/NUMBER.

    Raises:
        PipelineError: If MLflow can't be reached, or `name` stands for no run, for several, or for one
            without a model.
    """
    with reading_store(tracking, workspace) as client:
        version = registered(name, client)
        if version is None:
            run = resolve_one(name, all_runs(client))
            # An evaluation with other settings evaluates the model of its training.
            training = run.data.tags[PARENT_TAG] if EVALUATION_TAG in run.data.tags else run.info.run_id
            return _model_of(client, training, run)
        # The version's own files are used, even if its run was deleted for good.
        shown = unless_missing(lambda: client.get_run(version.run_id)) if version.run_id else None
        # A version has its own files, which may differ from those of the run that it names.
        location = client.get_model_version_download_uri(version.name, version.version)
        return LoggedModel(
            version.name,
            hashlib.sha256(location.encode()).hexdigest()[:32],
            location,
            version.run_id or "",
            dict(shown.data.metrics) if shown else {},
            shown.data.tags.get(REPORTS_TAG, "") if shown else "",
            str(version.version),
        )


def download_model(run_id: str, tracking: TrackingSection, workspace: Workspace, folder: Path) -> Path:
    """Download the Keras model of a run into `folder`, and return its path.

    Raises:
        PipelineError: If MLflow can't be reached, or has no model of this run.
    """
    with reading_store(tracking, workspace) as client:
        logged = _model_of(client, run_id, client.get_run(run_id))
        # Not with mlflow.keras: it imports more than this needs, and loads the file with fewer checks.
        from mlflow.artifacts import download_artifacts

        return Path(
            download_artifacts(artifact_uri=f"{logged.location}/data/model.keras", dst_path=str(folder))
        )


def download_card(model: LoggedModel, tracking: TrackingSection, workspace: Workspace) -> Path | None:
    """Download the model card and its figures, once for each evaluation; return None if there is no card.

    Raises:
        PipelineError: If MLflow can't be reached.
    """
    if not model.reports:
        return None
    folder = workspace.scratch / "cards" / f"{model.run_id}-{model.reports[:16]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (
            reading_store(tracking, workspace) as client,
            tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as temporary,
        ):
            available = {item.path for item in client.list_artifacts(model.run_id)}
            # For an evaluation without a card the folder stays empty, so that a server does not ask again.
            for path in available & {_CARD, "figures"} if _CARD in available else ():
                client.download_artifacts(model.run_id, path, temporary)
            try:
                Path(temporary).rename(folder)
            except OSError:
                # Another process was faster.
                if not folder.is_dir():
                    raise
    card = folder / _CARD
    return card if card.is_file() else None


def download_run(
    name: str, tracking: TrackingSection, workspace: Workspace, folder: Path, model: bool = True
) -> tuple[str, Mapping[str, str], Workspace]:
    """Download what MLflow holds of a training and its evaluation, as the stages wrote it.

    The name is one of `look_up`, or of a registered version: NAME@ALIAS or NAME/NUMBER.

    Returns:
        The run's name in MLflow; its tags; a workspace in `folder` with params.yaml, models/run.json and
        model.keras, reports/metrics.json and probabilities.npy, and the occasions, as far as MLflow has them.

    Raises:
        PipelineError: If MLflow can't be reached, or `name` stands for no training or for several.
    """
    files = Workspace(folder / "run")
    with reading_store(tracking, workspace) as client:
        version = registered(name, client)
        run = run_of(version, client) if version else resolve_one(name, without_evaluations(all_runs(client)))
        available = {item.path for item in client.list_artifacts(run.info.run_id)}
        if "run.json" not in available:
            raise PipelineError(
                f"MLflow's run {run.info.run_name} has no run.json: it did not finish or is of an older "
                "version. Train it again."
            )
        if ID_TAG not in run.data.tags:
            raise PipelineError(
                f"MLflow's run {run.info.run_name} has lost its tag {ID_TAG}: set it there to the id in the "
                "run's run.json."
            )
        places = {
            "config/params.yaml": files.params,
            "run.json": files.run,
            "metrics.json": files.metrics,
            "probabilities.npy": files.probabilities,
            "occasions": files.scratch / "occasions" / run.data.tags[ID_TAG],
        }
        for path, place in places.items():
            if path.partition("/")[0] in available:
                place.parent.mkdir(parents=True, exist_ok=True)
                Path(client.download_artifacts(run.info.run_id, path, str(folder))).rename(place)
    if model:
        download_model(run.info.run_id, tracking, workspace, folder).rename(files.model)
    return run.info.run_name, run.data.tags, files


def _model_of(client: "MlflowClient", run_id: str, shown: "Run") -> LoggedModel:
    """Return the model of a training, with the metrics of the run that shows its evaluation."""
    model = logged_model_of(client, shown.info.experiment_id, run_id)
    if model is None:
        raise PipelineError(without_model(shown))
    return LoggedModel(
        shown.info.run_name,
        str(model.model_id),
        model.artifact_location,
        shown.info.run_id,
        dict(shown.data.metrics),
        shown.data.tags.get(REPORTS_TAG, ""),
    )
