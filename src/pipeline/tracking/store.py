"""The MLflow store: which one, reached within a time limit, created once, moved with the repository."""

import logging
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from pipeline.config import TrackingSection
from pipeline.errors import PipelineError
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Where MLflow's schema holds absolute places.
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


@dataclass(frozen=True)
class Store:
    """An open store and the experiment in it that runs go to."""

    client: "MlflowClient"
    experiment: str
    uri: str


def uri_of(tracking: TrackingSection, workspace: Workspace) -> str:
    """MLFLOW_TRACKING_URI, or the uri in conf/, or mlflow.db of the repository that owns the workspace."""
    return os.environ.get("MLFLOW_TRACKING_URI") or tracking.uri or f"sqlite:///{database(workspace)}"


def database(workspace: Workspace) -> Path:
    """The SQLite file that `mlflow ui` opens by itself at the root of the repository."""
    return workspace.home / "mlflow.db"


def open_store(tracking: TrackingSection, workspace: Workspace) -> Store:
    """Connect, and create the experiment if it is not there.

    Raises:
        PipelineError: the experiment was deleted in MLflow.
        MlflowException: the store can't be reached within `tracking.timeout`.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(max(1, round(tracking.timeout))))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    uri = uri_of(tracking, workspace)
    local = uri == f"sqlite:///{database(workspace)}"
    import mlflow
    from mlflow.exceptions import MlflowException

    if local:
        # Takes a second, which it should not take under the lock.
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

        logging.getLogger("alembic").setLevel(logging.WARNING)
    _use(uri)
    root = (workspace.home / "mlruns").as_uri()
    workspace.scratch.mkdir(parents=True, exist_ok=True)
    # Processes that create MLflow's tables at once break the database.
    with FileLock(workspace.scratch / "store.lock"):
        client = mlflow.MlflowClient(uri)
        if local:
            _follow_a_move(database(workspace), root)
        experiment = client.get_experiment_by_name(tracking.experiment)
        if experiment is None:
            location = f"{root}/{tracking.experiment}" if local else None
            try:
                return Store(client, client.create_experiment(tracking.experiment, location), uri)
            except MlflowException:
                # Somebody else's process on the same server was faster.
                experiment = client.get_experiment_by_name(tracking.experiment)
                if experiment is None:
                    raise
    if experiment.lifecycle_stage == "deleted":
        raise PipelineError(
            f"The MLflow experiment {tracking.experiment!r} was deleted: restore it with `mlflow experiments "
            f"restore --experiment-id {experiment.experiment_id}`, or set tracking.experiment to another name."
        )
    return Store(client, experiment.experiment_id, uri)


def _use(uri: str) -> None:
    """Have MLflow's module-level functions use the store, without telling child processes."""
    import mlflow

    inherited = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if inherited:
        os.environ["MLFLOW_TRACKING_URI"] = inherited


def _follow_a_move(path: Path, root: str) -> None:
    """Have the runs of a repository that was moved or copied point to their artifacts beside the database."""
    with sqlite3.connect(path, timeout=30) as connection:
        ours = connection.execute(
            "SELECT name, artifact_location FROM experiments WHERE artifact_location LIKE 'file:%/mlruns/' || name"
        )
        for old in {place.removesuffix(f"/{name}") for name, place in ours} - {root}:
            for table, column in _PLACES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608
                    f"WHERE substr({column}, 1, ?) = ? || '/'",
                    (root, len(old) + 1, len(old) + 1, old),
                )
    connection.close()
