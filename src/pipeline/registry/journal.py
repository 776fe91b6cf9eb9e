"""The journal of a registered model: which version got each alias, when, from whom and why.

It consists of JSON lines, each with the SHA-256 of the line before it, and there are two copies of it. In
MLflow, each line is a param of one run. A param can't be changed, so if two processes on any machines write
the same line, one of them is refused. On disk, the journal is a file in `.pipeline/promotions`, from which
the run can be restored. The file is not in git, because it describes the tracking server, which all branches
of all clones share.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.config.schema import TrackingSection
from pipeline.console import count
from pipeline.errors import PipelineError
from pipeline.tracking.mlflow_run import MAX_TEXT, unless_missing
from pipeline.tracking.occasion import now
from pipeline.tracking.store import Store, is_local, open_store, uri_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import RegisteredModel

EXPERIMENT = "promotions"  # in MLflow, to keep the runs of journals apart from trainings
JOURNAL_TAG = "pipeline.journal"
_FIRST = 64 * "0"  # instead of a digest, in the first line


class BrokenError(PipelineError):
    """A line of the journal is missing, damaged, or was changed."""


class RenamedError(PipelineError):
    """The registered model has another name in MLflow now."""


class TakenError(PipelineError):
    """Another process has already written the line with this number."""


@dataclass(frozen=True)
class Entry:
    """One change of an alias."""

    number: int  # from 1
    time: str  # UTC
    who: str
    action: Literal["promote", "rollback"]
    alias: str
    before: str | None  # the version that had the alias, if any
    version: str
    run: str  # the name of the run whose model the version is
    run_id: str  # the pipeline's id of that run
    model_sha256: str
    forced: bool = False
    reason: str = ""
    checks: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    previous: str = _FIRST  # the SHA-256 of the line before

    def dump(self) -> str:
        """Return the entry as a line of JSON, without a line break."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))


def parse(lines: Sequence[str], where: str) -> list[Entry]:
    """Parse lines that `Entry.dump` wrote, and check their chain of digests; `where` is for messages.

    Raises:
        BrokenError: If a line is damaged, or the chain is broken.
    """
    entries: list[Entry] = []
    previous = _FIRST
    for number, line in enumerate(lines, 1):
        try:
            entry = Entry(**json.loads(line))
        except (ValueError, TypeError):
            raise BrokenError(f"Line {number} of {where} is damaged.") from None
        if (entry.number, entry.previous) != (number, previous):
            raise BrokenError(f"Line {number} of {where} does not follow the one before it.")
        entries.append(entry)
        previous = hashlib.sha256(line.encode()).hexdigest()
    return entries


class Journal:
    """The journal of one registered model, with its copies in MLflow and on disk."""

    def __init__(self, store: Store, path: Path, name: str) -> None:
        """Open the journal in the experiment `EXPERIMENT`, and add the lines that one copy lacks.

        Raises:
            BrokenError: If a copy is damaged, or the copies differ.
        """
        self._store, self._path, self.name = store, path, name
        self._run = _find_run(store, name)
        on_disk, in_mlflow = _read_copies(path, self._run, name)
        self._lines = max(on_disk, in_mlflow, key=len)
        self.entries = parse(self._lines, str(path))
        for number, line in enumerate(self._lines[len(in_mlflow) :], len(in_mlflow) + 1):
            self._send(number, line)
        if len(on_disk) < len(self._lines):
            self._write()

    def last(self, alias: str) -> Entry | None:
        """Return the latest entry of an alias, or None if there is none."""
        return next((entry for entry in reversed(self.entries) if entry.alias == alias), None)

    @property
    def next_fields(self) -> dict[str, Any]:
        """The fields `number`, `time` and `previous` of the next entry."""
        previous = hashlib.sha256(self._lines[-1].encode()).hexdigest() if self._lines else _FIRST
        time = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        return {"number": len(self._lines) + 1, "time": time, "previous": previous}

    def append(self, entry: Entry) -> None:
        """Add an entry to the end of both copies.

        Raises:
            PipelineError: If the entry is too long.
            TakenError: If another process wrote a line first; open the journal again to read it.
        """
        line = entry.dump()
        if len(line) > MAX_TEXT:
            raise PipelineError(
                f"The entry has {len(line):,} characters, but the limit is {MAX_TEXT:,}: shorten --reason."
            )
        self._send(entry.number, line)
        self._lines.append(line)
        self.entries.append(entry)
        self._write()

    def _send(self, number: int, line: str) -> None:
        from mlflow.exceptions import MlflowException

        if self._run is None:
            self.ensure_run()
        assert self._run
        try:
            self._store.client.log_param(self._run.info.run_id, f"{number:06d}", line)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise TakenError(
                f"Another promotion of {self.name} was recorded in the meantime; this one changed nothing. "
                "Run the same command again."
            ) from None

    def ensure_run(self) -> None:
        """Create the registered model and the run for the lines in MLflow, unless they exist.

        All machines use the same run: the registered model is created with a tag that names it, and only
        one machine can create the model.
        """
        from mlflow.exceptions import MlflowException

        client = self._store.client
        is_there = _registered_model(client, self.name) is not None
        if self._run and is_there:
            return
        made = self._run or self._create()
        if not is_there:
            try:
                client.create_registered_model(self.name, {JOURNAL_TAG: made.info.run_id})
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        self._run = _find_run(self._store, self.name) or made
        if self._run.info.run_id != made.info.run_id and not made.data.params:
            client.delete_run(made.info.run_id)

    def _create(self) -> "Run":
        client = self._store.client
        tags = {JOURNAL_TAG: self.name, "mlflow.source.name": "pipeline"}
        made = client.create_run(self._store.experiment, now(), tags, f"journal of {self.name}")
        client.set_terminated(made.info.run_id, "FINISHED")
        return made

    def _write(self) -> None:
        write_text(self._path, "".join(f"{line}\n" for line in self._lines))


def check_copies(tracking: TrackingSection, workspace: Workspace, name: str) -> list[Entry]:
    """Check both copies of a journal without writing anything, and return the entries.

    Raises:
        BrokenError: If a copy is damaged, the copies differ, or MLflow lacks lines that the disk has.
        MlflowException: If the store can't be reached.
    """
    store = open_store(tracking, workspace, experiment_name=EXPERIMENT)
    path = path_of(tracking, workspace, name)
    on_disk, in_mlflow = _read_copies(path, _named_run(store, name), name)
    # It is not an error if the copy on disk lacks lines: other clones may have written them.
    if len(on_disk) > len(in_mlflow):
        lost = count(len(on_disk) - len(in_mlflow), "line")
        raise BrokenError(
            f"The journal of {name} in MLflow lacks {lost} at the end of {path}: `pipeline history "
            f"--name {name!r}` restores them."
        )
    return parse(in_mlflow, str(path))


def _read_copies(path: Path, run: "Run | None", name: str) -> tuple[list[str], list[str]]:
    """Return the lines on disk and in MLflow, after checking that both are whole and one begins the other."""
    try:
        # Not `splitlines`, which also splits at characters that a reason may contain.
        on_disk = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    except FileNotFoundError:
        on_disk = []
    except UnicodeDecodeError:
        raise BrokenError(f"{path} is damaged: it is not UTF-8 text.") from None
    params = run.data.params if run else {}
    # Somebody may have added a param of their own, which nobody can remove.
    in_mlflow = [params[key] for key in sorted(params) if key.isdecimal()]
    parse(in_mlflow, f"the journal of {name} in MLflow")
    parse(on_disk, str(path))
    for number, (one, other) in enumerate(zip(on_disk, in_mlflow, strict=False), 1):
        if one != other:
            raise BrokenError(f"Line {number} of {path} differs from the copy in MLflow.")
    return on_disk, in_mlflow


def _find_run(store: Store, name: str) -> "Run | None":
    """Find the run in MLflow that holds the journal; if it was deleted, restore it."""
    run = _named_run(store, name)
    if run and run.info.lifecycle_stage == "deleted":
        if not run.data.params:
            return None
        store.client.restore_run(run.info.run_id)
    return run


def _registered_model(client: "MlflowClient", name: str) -> "RegisteredModel | None":
    return unless_missing(lambda: client.get_registered_model(name))


def _named_run(store: Store, name: str) -> "Run | None":
    """Find the run that the registered model names, or else the first run with its journal.

    Raises:
        RenamedError: If that is the journal of a registered model that was renamed.
    """
    model = _registered_model(store.client, name)
    named = model.tags.get(JOURNAL_TAG) if model else None
    run = unless_missing(lambda: store.client.get_run(named)) if named else None
    # Somebody may have edited the tag of the model.
    run = run if run and JOURNAL_TAG in run.data.tags else store.find({JOURNAL_TAG: name})
    if run and model is None:
        for other in store.client.search_registered_models(f"tags.`{JOURNAL_TAG}` = '{run.info.run_id}'"):
            raise RenamedError(
                f"The registered model {name} was renamed to {other.name} in MLflow: rename it back, or use "
                f"--name {shlex.quote(other.name)}."
            )
    return run


def path_of(tracking: TrackingSection, workspace: Workspace, name: str) -> Path:
    """Return the path of the copy on disk, which depends on the store: each has its own models."""
    return folder_of(tracking, workspace) / f"{name}.jsonl"


def folder_of(tracking: TrackingSection, workspace: Workspace) -> Path:
    """Return the folder for the journals of a store; for a local store, it moves with the repository."""
    uri = re.sub(r"://[^/@\s]+@", "://", uri_of(tracking, workspace))
    store = "local" if is_local(tracking, workspace) else hashlib.sha256(uri.encode()).hexdigest()[:12]
    return workspace.scratch / "promotions" / store
