"""Read and repair the repository's own MLflow database, mlflow.db, without importing MLflow.

Importing MLflow takes seconds; most commands find out in milliseconds that there is nothing to do.
"""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.artifacts.workspace import Workspace

# The columns of MLflow's tables that contain absolute addresses of artifacts.
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def database(workspace: Workspace) -> Path:
    """Return the SQLite file that `mlflow ui` opens by default in the root of the repository."""
    return workspace.home / "mlflow.db"


def artifact_root(workspace: Workspace) -> str:
    """Return the URI at which the repository's own store keeps artifacts."""
    return (workspace.home / "mlruns").as_uri()


def relocate_artifacts(workspace: Workspace) -> None:
    """Point the runs of a repository that was moved or copied to the artifacts next to its database.

    An experiment's artifacts have moved if they are here and not where the database says, whatever the
    experiment is called; those of another clone that uses this database stay where they are.
    """
    root = artifact_root(workspace)
    with closing(sqlite3.connect(database(workspace), timeout=30)) as connection, connection:
        found = connection.execute(
            "SELECT experiment_id, artifact_location FROM experiments "
            "WHERE artifact_location LIKE 'file:%/mlruns/%'"
        )
        for experiment, old in found.fetchall():
            new = f"{root}/{old.rpartition('/mlruns/')[2]}"
            if old == new or not _has_moved(connection, experiment, _path(old), _path(new), workspace):
                continue
            for table, column in _ADDRESSES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ? || '/'",
                    (new, len(old) + 1, old, len(old) + 1, old),
                )


def _has_moved(
    connection: sqlite3.Connection, experiment: int, old: Path, new: Path, workspace: Workspace
) -> bool:
    """Return whether the artifacts of the experiment are now in `new`."""
    there = Path(str(old).rpartition("/mlruns/")[0])
    if not there.exists():
        return True
    runs = connection.execute("SELECT run_uuid FROM runs WHERE experiment_id = ?", (experiment,)).fetchall()
    if runs:
        return any((new / run).exists() for (run,) in runs)
    # Without runs there is one sign left: if the other folder has its own database, this one is a copy.
    other = there / database(workspace).name
    return other.exists() and not other.samefile(database(workspace))


def _path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def find_run(
    workspace: Workspace, tags: dict[str, str], only_finished: bool = True, with_model: bool = False
) -> str | None:
    """Return the id of a run in the repository's own store that has all `tags` and its artifacts.

    With `only_finished`, runs that have not finished, have failed or were deleted are ignored; `with_model`,
    those without a logged model.
    """
    if not database(workspace).exists():
        return None
    query = "SELECT run_uuid, artifact_uri, lifecycle_stage FROM runs WHERE "
    query += "lifecycle_stage = 'active' AND status = 'FINISHED'" if only_finished else "1"
    if with_model:
        query += " AND run_uuid IN (SELECT source_run_id FROM logged_models WHERE lifecycle_stage = 'active')"
    values: list[str] = []
    for key, value in tags.items():
        query += " AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = ? AND value = ?)"
        values += [key, value]
    try:
        relocate_artifacts(workspace)
        with closing(sqlite3.connect(database(workspace), timeout=30)) as connection:
            for run, address, stage in connection.execute(query, values):
                models = connection.execute(
                    "SELECT artifact_location FROM logged_models WHERE source_run_id = ?", (run,)
                ).fetchall()
                # Somebody may have deleted mlruns/.
                if stage == "deleted" or all(has_files(folder) for (folder,) in [(address,), *models]):
                    return str(run)
    except sqlite3.Error:
        pass  # Its tables are still being created, or MLflow will report what is wrong with it.
    return None


def lacks_tag(workspace: Workspace, trainings: Iterable[str | None], tag: str) -> bool:
    """Return whether a run of one of the `trainings`, given by their ids, lacks the tag."""
    query = (
        "SELECT run_uuid FROM runs JOIN tags USING (run_uuid) WHERE lifecycle_stage = 'active' "
        "AND key = 'pipeline.id' AND value = ? AND run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = ?)"
        " AND run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = 'pipeline.evaluation')"
    )
    with closing(sqlite3.connect(database(workspace), timeout=30)) as connection:
        return any(connection.execute(query, (one, tag)).fetchone() for one in trainings if one)


def local_folder(address: str) -> Path | None:
    """Return the folder on this machine that an address of artifacts stands for; None if it is elsewhere."""
    return _path(address) if urlsplit(address).scheme in ("", "file") else None


def has_files(address: str) -> bool:
    """Return whether there are artifacts at an address; True if it is not a folder on this machine."""
    folder = local_folder(address)
    return folder is None or any(folder.glob("*"))
