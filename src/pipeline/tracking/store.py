"""The MLflow store: which one, reached within a time limit, created once, moved with the repository."""

import logging
import os
import re
import sqlite3
import textwrap
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

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

    def find(self, tag: str, value: str) -> "Run | None":
        """The experiment's first run with that tag, also if it was deleted."""
        from mlflow.entities import ViewType

        found = self.client.search_runs(
            [self.experiment],
            f"tags.`{tag}` = '{value}'",
            run_view_type=ViewType.ALL,
            max_results=1,
            order_by=["attributes.start_time ASC"],
        )
        return found[0] if found else None


def uri_of(tracking: TrackingSection, workspace: Workspace) -> str:
    """MLFLOW_TRACKING_URI, or the uri in conf/, or mlflow.db of the repository that owns the workspace."""
    return os.environ.get("MLFLOW_TRACKING_URI") or tracking.uri or _local_uri(workspace)


def is_local(tracking: TrackingSection, workspace: Workspace) -> bool:
    """Whether the store is the repository's own mlflow.db."""
    return uri_of(tracking, workspace) == _local_uri(workspace)


def _local_uri(workspace: Workspace) -> str:
    return _sqlite(database(workspace))


def _sqlite(path: Path) -> str:
    # SQLAlchemy decodes %20 and its like in a file's name.
    return "sqlite:///" + str(path).replace("%", "%25")


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
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    uri, local = uri_of(tracking, workspace), is_local(tracking, workspace)
    import mlflow
    from mlflow.exceptions import MlflowException

    if local:
        # Takes a second, which it should not take under the lock.
        import mlflow.store.tracking.sqlalchemy_store

        for chatter in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(chatter).setLevel(logging.WARNING)
    _use(uri)
    root = artifact_root(workspace)
    workspace.scratch.mkdir(parents=True, exist_ok=True)
    # Processes that create MLflow's tables at once break the database; a server guards its own.
    with FileLock(workspace.scratch / "store.lock") if local else nullcontext():
        if local and not database(workspace).exists():
            _create(workspace)
        client = mlflow.MlflowClient(uri)
        if local:
            follow_a_move(workspace)
        experiment = client.get_experiment_by_name(tracking.experiment)
        if experiment is None:
            location = f"{root}/{tracking.experiment}" if local else None
            try:
                return Store(client, client.create_experiment(tracking.experiment, location))
            except MlflowException:
                # Somebody else's process on the same server was faster.
                experiment = client.get_experiment_by_name(tracking.experiment)
                if experiment is None:
                    raise
    if experiment.lifecycle_stage == "deleted":
        raise PipelineError(
            f"The MLflow experiment {tracking.experiment!r} was deleted: restore it with `mlflow "
            f"experiments restore --experiment-id {experiment.experiment_id}`, or name another one in "
            "tracking.experiment."
        )
    return Store(client, experiment.experiment_id)


def _create(workspace: Workspace) -> None:
    """Create mlflow.db whole or not at all: with half of its tables MLflow never opens it again."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    made = workspace.scratch / "mlflow.db"
    made.unlink(missing_ok=True)
    SqlAlchemyStore(_sqlite(made), artifact_root(workspace)).engine.dispose()
    if not database(workspace).exists():  # `mlflow ui` may have been faster.
        made.replace(database(workspace))


def unreachable(
    error: Exception,
    tracking: TrackingSection,
    workspace: Workspace,
    failed: str = "could not be brought up to date",
) -> str:
    """The sentence for a store that can't be reached, or refused."""
    reason = textwrap.shorten(str(error), 300, placeholder=" ...") or type(error).__name__
    text = f"MLflow at {uri_of(tracking, workspace)} {failed}: {reason}"
    # MLFLOW_TRACKING_URI may hold a password.
    return re.sub(r"://[^/@\s]+@", "://", text)


def search(client: "MlflowClient", condition: str) -> "list[Run]":
    """The runs of all experiments that meet the condition, the oldest first."""
    experiments = [found.experiment_id for found in client.search_experiments()]
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            experiments, condition, max_results=1000, order_by=["start_time"], page_token=token
        )
        runs += page
        token = page.token
        if not token:
            return runs


def _use(uri: str) -> None:
    """Have MLflow's module-level functions use the store, without telling child processes."""
    import mlflow

    inherited = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if inherited:
        os.environ["MLFLOW_TRACKING_URI"] = inherited


def artifact_root(workspace: Workspace) -> str:
    """Where the repository's own store keeps artifacts."""
    return (workspace.home / "mlruns").as_uri()


def follow_a_move(workspace: Workspace) -> None:
    """Have the runs of a repository that was moved or copied point to their artifacts beside the database."""
    root = artifact_root(workspace)
    with closing(sqlite3.connect(database(workspace), timeout=30)) as connection, connection:
        ours = connection.execute(
            "SELECT name, artifact_location FROM experiments "
            "WHERE artifact_location LIKE 'file:%/mlruns/' || name"
        )
        for old in {place.removesuffix(f"/{name}") for name, place in ours} - {root}:
            for table, column in _PLACES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608
                    f"WHERE substr({column}, 1, ?) = ? || '/'",
                    (root, len(old) + 1, len(old) + 1, old),
                )


def find_run(workspace: Workspace, tags: dict[str, str], only_finished: bool = True) -> str | None:
    """The run in the repository's own store that has all `tags`, found without importing MLflow.

    That takes milliseconds where MLflow takes seconds: most commands find that there is nothing to do.
    """
    if not database(workspace).exists():
        return None
    query = "SELECT run_uuid FROM runs WHERE "
    query += "lifecycle_stage = 'active' AND status = 'FINISHED'" if only_finished else "1"
    values: list[str] = []
    for key, value in tags.items():
        query += " AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = ? AND value = ?)"
        values += [key, value]
    try:
        follow_a_move(workspace)
        with closing(sqlite3.connect(database(workspace), timeout=30)) as connection:
            found = connection.execute(query, values).fetchone()
    except sqlite3.Error:
        return None  # Its tables are being created, or MLflow will say what is wrong with it.
    return str(found[0]) if found else None
