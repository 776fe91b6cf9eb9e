"""A registered model: its versions, its journal, and its aliases, which are set to what the journal says."""

import getpass
import re
import shlex
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.console import warn
from pipeline.errors import PipelineError
from pipeline.processes.lock import locked
from pipeline.registry.journal import EXPERIMENT, Entry, Journal, path_of
from pipeline.registry.versions import MODEL_FILE_TAG, Versions
from pipeline.tracking.identity import read_run
from pipeline.tracking.lineage import git, readable
from pipeline.tracking.mlflow_run import ID_TAG, NAME_TAG
from pipeline.tracking.store import open_store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_NAME = re.compile(r"[A-Za-z0-9_][\w .,=+-]{0,99}")
_ATTEMPTS = 5  # to set an alias while others do


@dataclass
class Registered:
    """A registered model, locked against changes by other processes in the repository."""

    name: str
    tracking: TrackingSection
    repository: Workspace
    versions: Versions
    journal: Journal

    def lost_entry(self, alias: str) -> Entry | None:
        """Return the journal's latest entry of the alias if MLflow lacks its version, or else None."""
        last = self.journal.last(alias)
        return last if last and self.champion(alias) is None else None

    def champion(self, alias: str) -> "ModelVersion | None":
        """Return the version with the alias in the journal, or in MLflow if the journal has no entry."""
        last = self.journal.last(alias)
        return self.versions.of(last) if last else self.versions.at(alias)

    def restore_alias(self, alias: str) -> None:
        """Set the alias to the version in the journal, with a warning, if MLflow has another one."""
        last, found = self.journal.last(alias), self.versions.at(alias)
        if last is None or (found and str(found.version) == last.version) or self.lost_entry(alias):
            return
        warn(
            f"{alias} of {self.name} was {f'version {found.version}' if found else 'no version'}, but the "
            f"journal says version {last.version} ({last.run}): an earlier promotion was interrupted, or "
            "somebody set it by hand. It is now set to what the journal says."
        )
        self._set_alias(alias)

    def record(self, alias: str, before: "ModelVersion | None", to: "ModelVersion", **more: Any) -> None:
        """Add an entry to the journal, and then give the alias to the version in it.

        `more` has the other fields of the `Entry`.

        Raises:
            TakenError: If another process has just added an entry; nothing is changed then.
        """
        entry = Entry(
            **self.journal.next_fields,
            who=_who(self.repository),
            alias=alias,
            before=str(before.version) if before else None,
            version=str(to.version),
            run=to.tags.get(NAME_TAG, to.run_id),
            run_id=to.tags.get(ID_TAG, ""),
            model_sha256=to.tags.get(MODEL_FILE_TAG, ""),
            **more,
        )
        self.journal.append(entry)
        self._set_alias(alias)

    def _set_alias(self, alias: str) -> None:
        for _ in range(_ATTEMPTS):
            last = self.journal.last(alias)
            if last is None:
                return
            self.versions.set_alias(alias, last.version)
            # Another machine may have added an entry, and set the alias before this one did.
            self.journal = open_journal(self.name, self.tracking, self.repository)
            if self.journal.last(alias) == last:
                return


@contextmanager
def registered(name: str, tracking: TrackingSection, repository: Workspace) -> Iterator[Registered]:
    """Open the registered model `name`, which may not exist yet, and lock it for this process.

    Raises:
        BrokenError: If its journal is damaged.
        MlflowException: If the store can't be reached.
    """
    lock = path_of(tracking, repository, name).with_suffix(".lock")
    with locked(lock, waiting=f"Waiting for another process that is promoting {name}."):
        versions = Versions(open_store(tracking, repository).client, name)
        journal = open_journal(name, tracking, repository)
        yield Registered(name, tracking, repository, versions, journal)


def open_journal(name: str, tracking: TrackingSection, repository: Workspace) -> Journal:
    """Open the journal of a registered model, and add the lines that one copy lacks.

    Raises:
        BrokenError: If a copy is damaged, or the copies differ.
        MlflowException: If the store can't be reached.
    """
    store = open_store(tracking, repository, experiment_name=EXPERIMENT)
    return Journal(store, path_of(tracking, repository, name), name)


def deviation(entry: Entry, versions: Versions) -> str | None:
    """Return a sentence if the alias of its latest journal entry has another version; None if it agrees."""
    found = versions.at(entry.alias)
    if found and str(found.version) == entry.version:
        return None
    if versions.of(entry) is None:
        return lost_version(entry, versions.name)
    where = f"version {found.version}" if found else "no version"
    return (
        f"{entry.alias} of {versions.name} is {where}, but the journal says version {entry.version} "
        f"({entry.run}): the next `pipeline promote` or `pipeline rollback` sets it to what the journal says."
    )


def lost_version(entry: Entry, name: str) -> str:
    """Say that MLflow lacks the version in a journal entry, and how to get it back."""
    other = f" --as {entry.alias}" if entry.alias != "champion" else ""
    return (
        f"According to the journal, {entry.alias} of {name} is version {entry.version}, from the run "
        f"{entry.run}, but MLflow has no such version. `pipeline promote {shlex.quote(entry.run)} --name "
        f"{shlex.quote(name)}{other} --force --reason lost` registers it again. If MLflow lacks the run, "
        "restore it first: `pipeline sync` does so if its model is in models/; a sweep's command, or `python "
        "-m pipeline` with the run's values, gets it from DVC's cache."
    )


def name_in(repository: Workspace) -> str:
    """Return the name of the registered model for the model in the workspace: that of its data set.

    Raises:
        PipelineError: If there is no model.
    """
    if not repository.run.exists():
        raise PipelineError("There is no model in models/ whose data set is meant: give --name NAME.")
    return str(read_run(repository.run)["data"]["name"])


def refuse_names(name: str | None, alias: str = "champion") -> None:
    """Refuse names that can't be used in MLflow or in the name of the journal's file; None is no name."""
    if name is not None and not is_name(name):
        raise PipelineError(f"--name {name!r} is not valid: use up to 100 letters, digits, spaces and _.,=+-")
    # MLflow reserves latest, and v1 and so on.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,49}", alias) or re.fullmatch(r"(?i)v\d+|latest", alias):
        raise PipelineError(
            f"--as {alias!r} is not valid: use letters, digits, _ and -, a letter first, not latest or v1."
        )


def is_name(name: str) -> bool:
    """Return whether a registered model can have this name; MLflow allows more names."""
    return _NAME.fullmatch(name) is not None


def refuse_reason(reason: str) -> None:
    """Refuse a reason that the journal can't store, before a model is registered."""
    if readable(reason) != reason:
        raise PipelineError(
            f"--reason {reason!a} has bytes that are not UTF-8: write it in a UTF-8 terminal."
        )


def _who(repository: Workspace) -> str:
    """Return the user in git's configuration, or else the user of the machine."""
    found = [
        readable((git(repository.home, "config", key) or "").strip()) for key in ("user.name", "user.email")
    ]
    return f"{found[0]} <{found[1]}>" if all(found) else f"{getpass.getuser()}@{socket.gethostname()}"
