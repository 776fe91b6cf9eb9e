"""The MLflow store: which one, reached within a time limit, created once, moved with the repository."""

import logging
import os
import re
import textwrap
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.errors import PipelineError
from pipeline.tracking.database import artifact_root, database, relocate_artifacts
from pipeline.tracking.view import write_view

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


# Tableau's twenty: so many runs side by side are told apart, whichever they are.
_COLOURS = (
    *("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f"),
    *("#bab0ac", "#a0cbe8", "#ffbe7d", "#d37295", "#86bcb6", "#8cd17d", "#b6992d", "#d4a6c8", "#79706e"),
    *("#d7b5a6", "#499894"),
)
_COLOURS_APART = 10


@dataclass(frozen=True)
class Store:
    """An open store and the experiment in it that runs go to."""

    client: "MlflowClient"
    experiment: str
    lock: Path  # held by a process of this repository while it creates a run

    def find(self, tags: Mapping[str, str], without: str = "") -> "Run | None":
        """The experiment's first run with these tags; a deleted one only if there is no other.

        Args:
            tags: what its tags say.
            without: the name of a tag that it must not have.
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
        """A colour that none of the latest runs has; MLflow's own choice gives most runs the same.

        Args:
            seed: hexadecimal digits that decide which, lest runs that are created at once have the same.
        """
        latest = self.client.search_runs([self.experiment], max_results=_COLOURS_APART - 1)
        used = {run.data.tags.get("mlflow.runColor") for run in latest}
        unused = [colour for colour in _COLOURS if colour not in used]
        return unused[int(seed, 16) % len(unused)]

    @contextmanager
    def creating(self) -> Iterator[None]:
        """Keep other processes of the repository from creating a run meanwhile."""
        with FileLock(self.lock):
            yield


def uri_of(tracking: TrackingSection, workspace: Workspace) -> str:
    """MLFLOW_TRACKING_URI, or the uri in conf/, or mlflow.db of the repository that owns the workspace.

    A relative SQLite file is relative to the repository, wherever the process was started.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking.uri or _local_uri(workspace)
    relative = re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^/:].*)", uri)
    return f"{relative[1]}{_quoted(workspace.home)}/{relative[2]}" if relative else uri


def is_local(tracking: TrackingSection, workspace: Workspace) -> bool:
    """Whether the store is the repository's own mlflow.db."""
    return uri_of(tracking, workspace) == _local_uri(workspace)


def is_server(tracking: TrackingSection, workspace: Workspace) -> bool:
    """Whether the store is a server's, which may be slow."""
    return urlsplit(uri_of(tracking, workspace)).scheme in ("http", "https")


def _local_uri(workspace: Workspace) -> str:
    return _sqlite(database(workspace))


def _sqlite(path: Path) -> str:
    return f"sqlite:///{_quoted(path)}"


def _quoted(path: Path) -> str:
    # SQLAlchemy decodes %20 and its like in a file's name.
    return str(path).replace("%", "%25")


def _sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None: it is another kind of store."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///(/[^?]+)(?:\?.*)?", uri)
    return Path(unquote(found[1])) if found else None


def import_mlflow(tracking: TrackingSection, workspace: Workspace) -> None:
    """Import what the store needs, which takes seconds; nothing is connected."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(max(1, round(tracking.timeout))))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    import mlflow

    if not is_server(tracking, workspace):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 (not under the lock)

        for chatter in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(chatter).setLevel(logging.WARNING)


def leave_deleted_folder(workspace: Workspace) -> None:
    """MLflow asks for the current directory; DVC deletes that of a killed experiment of its queue."""
    try:
        Path.cwd()
    except FileNotFoundError:
        os.chdir(workspace.home)


def open_store(
    tracking: TrackingSection, workspace: Workspace, given_up: threading.Event | None = None
) -> Store:
    """Connect, and create the experiment if it is not there.

    Args:
        tracking: names the store and the experiment.
        workspace: of the repository, or one of its trials.
        given_up: once it is set nothing more is sent.

    Raises:
        PipelineError: the experiment was deleted in MLflow.
        MlflowException: the store can't be reached within `tracking.timeout`.
    """
    import_mlflow(tracking, workspace)
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = uri_of(tracking, workspace)
    _use(uri)
    workspace.scratch.mkdir(parents=True, exist_ok=True)
    file, lock = _sqlite_file(uri), workspace.scratch / "store.lock"
    # Processes that create MLflow's tables at once break the database; a server guards its own.
    with FileLock(lock) if file else nullcontext():
        if file and not file.exists():
            _create(file, workspace)
        client = mlflow.MlflowClient(uri)
        if given_up:
            client = cast("MlflowClient", _UntilGivenUp(client, given_up))
        if is_local(tracking, workspace):
            relocate_artifacts(workspace)
        experiment = client.get_experiment_by_name(tracking.experiment)
        if experiment is None:
            # MLflow's own choice would be a folder of the current directory, which a trial deletes.
            root = (file.parent / "mlruns").as_uri() if file else artifact_root(workspace)
            location = None if is_server(tracking, workspace) else f"{root}/{tracking.experiment}"
            try:
                client.create_experiment(tracking.experiment, location)
            except MlflowException as error:
                # Another process on the same server may be faster.
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            experiment = client.get_experiment_by_name(tracking.experiment)
    if experiment.lifecycle_stage == "deleted":
        raise PipelineError(
            f"The MLflow experiment {tracking.experiment!r} was deleted: restore it with `mlflow "
            f"experiments restore --experiment-id {experiment.experiment_id}`, or name another one in "
            "tracking.experiment."
        )
    write_view(client, experiment)
    return Store(client, experiment.experiment_id, lock)


class _UntilGivenUp:
    """A client whose methods raise an exception once nobody waits for them any more."""

    def __init__(self, client: "MlflowClient", given_up: threading.Event) -> None:
        self._client, self._given_up = client, given_up

    def __getattr__(self, name: str) -> Any:
        if self._given_up.is_set():
            raise TimeoutError("the server is too slow")
        return getattr(self._client, name)


def _create(file: Path, workspace: Workspace) -> None:
    """Create an SQLite store whole or not at all: with half of its tables MLflow never opens it again."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file.parent.mkdir(parents=True, exist_ok=True)
    # Not `atomic`, which would replace a store that `mlflow ui` creates meanwhile.
    folder = workspace.scratch if file == database(workspace) else file.parent
    made = folder / f".{file.name}.creating"
    made.unlink(missing_ok=True)
    try:
        SqlAlchemyStore(_sqlite(made), artifact_root(workspace)).engine.dispose()
        with suppress(FileExistsError):
            os.link(made, file)
    finally:
        made.unlink(missing_ok=True)


def answers(tracking: TrackingSection, workspace: Workspace) -> bool:
    """Whether the store can be reached, whatever it says."""
    if not is_server(tracking, workspace):
        return True
    address = re.sub(r"://[^/@\s]+@", "://", uri_of(tracking, workspace)).rstrip("/")
    try:
        urllib.request.urlopen(f"{address}/health", timeout=tracking.timeout).close()  # noqa: S310
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


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
