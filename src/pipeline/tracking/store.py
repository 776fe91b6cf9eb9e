"""Open the MLflow store: find its address, connect within a time limit, and create it if necessary."""

import logging
import os
import re
import shlex
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.environment import without_collecting
from pipeline.errors import PipelineError
from pipeline.tracking.database import artifact_root, database, relocate_artifacts
from pipeline.tracking.view import write_view

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


# Tableau's palette of twenty colours, which are easy to tell apart.
_COLOURS = (
    *("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f"),
    *("#bab0ac", "#a0cbe8", "#ffbe7d", "#d37295", "#86bcb6", "#8cd17d", "#b6992d", "#d4a6c8", "#79706e"),
    *("#d7b5a6", "#499894"),
)
_COLOURS_APART = 10


@dataclass(frozen=True)
class Store:
    """An open store and the experiment in it that runs belong to."""

    client: "MlflowClient"
    experiment: str  # the experiment's id
    lock: Path  # held by a process of this repository while it creates a run

    def find(self, tags: Mapping[str, str], without: str = "") -> "Run | None":
        """Return the experiment's oldest run with these tags; a deleted one only if there is no other.

        It must not have the tag `without`.
        """
        from mlflow.entities import ViewType

        found = self.client.search_runs(
            [self.experiment],
            " AND ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items()),
            run_view_type=ViewType.ALL,
            order_by=["attributes.start_time ASC"],
        )
        found = [run for run in found if without not in run.data.tags]
        return min(found, key=lambda run: run.info.lifecycle_stage == "deleted", default=None)

    def new_colour(self, seed: str) -> str:
        """Return a colour that none of the latest runs has; MLflow would give most runs the same one.

        The seed, in hexadecimal digits, makes runs that are created at once differ.
        """
        latest = self.client.search_runs([self.experiment], max_results=_COLOURS_APART - 1)
        used = {run.data.tags.get("mlflow.runColor") for run in latest}
        unused = [colour for colour in _COLOURS if colour not in used]
        return unused[int(seed, 16) % len(unused)]

    def find_or_create(
        self, tags: Mapping[str, str], create: "Callable[[], Run]", without: str = ""
    ) -> "Run":
        """Return the run that `find` finds, or else the one that `create` creates with these tags.

        Processes of this repository wait for each other.
        """
        with FileLock(self.lock):
            if found := self.find(tags, without):
                return found
            made = create()
            # Another clone may have created the run on the same server at the same time: use the first one.
            first = self.find(tags, without) or made
            if first.info.run_id != made.info.run_id:
                self.client.delete_run(made.info.run_id)
            return first


def uri_of(tracking: TrackingSection, workspace: Workspace) -> str:
    """Return MLFLOW_TRACKING_URI, the uri in conf/ or the address of the repository's mlflow.db.

    A relative SQLite path is relative to the repository, wherever the process was started.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking.uri or _local_uri(workspace)
    relative = re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^/:].*)", uri)
    return f"{relative[1]}{_quoted(workspace.home)}/{relative[2]}" if relative else uri


def is_local(tracking: TrackingSection, workspace: Workspace) -> bool:
    """Return whether the store is the repository's own mlflow.db."""
    return uri_of(tracking, workspace) == _local_uri(workspace)


def is_server(tracking: TrackingSection, workspace: Workspace) -> bool:
    """Return whether the store is a server, which may be slow."""
    return urlsplit(uri_of(tracking, workspace)).scheme in ("http", "https")


def mlflow_command(arguments: str, tracking: TrackingSection, workspace: Workspace) -> str:
    """Return the command by which a user in the repository runs MLflow's own program on this store."""
    # The program reads the variable, but not conf/.
    found_by_itself = os.environ.get("MLFLOW_TRACKING_URI") or is_local(tracking, workspace)
    where = "" if found_by_itself else f"MLFLOW_TRACKING_URI={shlex.quote(uri_of(tracking, workspace))} "
    return f"{where}mlflow {arguments}"


def restore_command(run_id: str, tracking: TrackingSection, workspace: Workspace) -> str:
    """Return the command that brings back a run which was deleted in MLflow, as in `mlflow_command`."""
    return mlflow_command(f"runs restore --run-id {run_id}", tracking, workspace)


def _local_uri(workspace: Workspace) -> str:
    return _sqlite(database(workspace))


def _sqlite(path: Path) -> str:
    # Of an address with the driver's name, MLflow does not make the folder: it would take escapes literally.
    scheme = "sqlite" if _quoted(path) == str(path) else "sqlite+pysqlite"
    return f"{scheme}:///{_quoted(path)}"


def _quoted(path: Path) -> str:
    # SQLAlchemy decodes escapes such as %20 in the name of a file, and ends it at a question mark.
    return str(path).replace("%", "%25").replace("?", "%3F")


def _sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite store; None if it is another kind of store."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///(/[^?]+)(?:\?.*)?", uri)
    return Path(unquote(found[1])) if found else None


def import_mlflow(tracking: TrackingSection, workspace: Workspace) -> None:
    """Import what the store needs, which takes seconds, without connecting to it."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(max(1, round(tracking.timeout))))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    with without_collecting():
        import mlflow

        if not is_server(tracking, workspace):
            for name, value in connection_settings(uri_of(tracking, workspace)).items():
                os.environ.setdefault(name, value)
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 (not under the lock)
    for logger in ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store"):
        logging.getLogger(logger).setLevel(logging.WARNING)


def connection_settings(uri: str) -> dict[str, str]:
    """Return the environment variables with which MLflow opens an SQLite file anew for each request.

    If the file is replaced, for example by a backup, a connection to the old one would neither see what
    others write, nor let them write: SQLite finds the journal of a file by its name, and a reader of the old
    file would remove the journal of a process that is writing to the new one.
    """
    return {"MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool"} if _sqlite_file(uri) else {}


def open_store(
    tracking: TrackingSection,
    workspace: Workspace,
    given_up: threading.Event | None = None,
    experiment_name: str | None = None,
) -> Store:
    """Connect to the store, and create the experiment if it does not exist.

    Once the event `given_up` is set, nothing more is sent. `experiment_name` takes the place of the
    experiment in the configuration.

    Raises:
        PipelineError: If the experiment was deleted in MLflow.
        MlflowException: If the store can't be reached within `tracking.timeout` seconds.
    """
    import_mlflow(tracking, workspace)
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = uri_of(tracking, workspace)
    _use(uri)
    workspace.scratch.mkdir(parents=True, exist_ok=True)
    file, lock = _sqlite_file(uri), workspace.scratch / "store.lock"
    # Processes that create MLflow's tables at the same time break the database; a server prevents that.
    with FileLock(lock) if file else nullcontext():
        if file and not file.exists():
            _create(file, workspace)
        client = mlflow.MlflowClient(uri)
        if given_up:
            client = cast("MlflowClient", _UntilGivenUp(client, given_up))
        if is_local(tracking, workspace):
            relocate_artifacts(workspace)
        name = experiment_name or tracking.experiment
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            # MLflow's default is a folder in the current directory, which a trial deletes.
            root = (file.parent / "mlruns").as_uri() if file else artifact_root(workspace)
            location = None if is_server(tracking, workspace) else f"{root}/{name}"
            try:
                client.create_experiment(name, location)
            except MlflowException as error:
                # Another process on the same server may be faster.
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            experiment = client.get_experiment_by_name(name)
    if not experiment.experiment_id:
        raise MlflowException("It does not answer as MLflow does. Is the address right?")
    if experiment.lifecycle_stage == "deleted":
        restore = f"experiments restore --experiment-id {experiment.experiment_id}"
        other = "" if experiment_name else ", or name another one in tracking.experiment"
        raise PipelineError(
            f"The MLflow experiment {name!r} was deleted: restore it with "
            f"`{mlflow_command(restore, tracking, workspace)}`{other}."
        )
    write_view(client, experiment)
    return Store(client, experiment.experiment_id, lock)


class _UntilGivenUp:
    """A client whose methods raise `TimeoutError` once `given_up` is set."""

    def __init__(self, client: "MlflowClient", given_up: threading.Event) -> None:
        self._client, self._given_up = client, given_up

    def __getattr__(self, name: str) -> Any:
        if self._given_up.is_set():
            raise TimeoutError("the server is too slow")
        return getattr(self._client, name)


def _create(file: Path, workspace: Workspace) -> None:
    """Create an SQLite store completely or not at all: MLflow can't open one that lacks tables."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file.parent.mkdir(parents=True, exist_ok=True)
    # `atomic` would replace a store that `mlflow ui` creates at the same time.
    folder = workspace.scratch if file == database(workspace) else file.parent
    temporary = folder / f".{file.name}.creating"
    temporary.unlink(missing_ok=True)
    try:
        SqlAlchemyStore(_sqlite(temporary), artifact_root(workspace)).engine.dispose()
        with suppress(FileExistsError):
            os.link(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def search(client: "MlflowClient", condition: str, deleted: bool = False) -> "list[Run]":
    """Return the runs of all experiments that meet the condition, the oldest first.

    These are only the runs that were deleted, or only those that were not.
    """
    from mlflow.entities import ViewType

    view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    experiments = [found.experiment_id for found in client.search_experiments()]
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            experiments, condition, view, max_results=1000, order_by=["start_time"], page_token=token
        )
        runs += page
        token = page.token
        if not token:
            return runs


def _use(uri: str) -> None:
    """Make MLflow's module-level functions use the store, without affecting child processes."""
    import mlflow

    inherited = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if inherited:
        os.environ["MLFLOW_TRACKING_URI"] = inherited
