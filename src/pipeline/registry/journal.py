"""The journal of a registered model: which version its aliases were given to, when, by whom and why.

It is a list of JSON lines, each with the SHA-256 of the line before it, and it is kept twice. In MLflow each
line is a param of one run: a param can't be changed, and of two processes that write the same one, on
whichever machines, one is refused. On disk it is a file in `.pipeline/promotions`, which restores the run.
The file is not in git: it describes the tracking server, which all branches of all clones share.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.config.schema import TrackingSection
from pipeline.errors import PipelineError
from pipeline.tracking.mlflow_run import unless_missing
from pipeline.tracking.occasion import now
from pipeline.tracking.store import Store, is_local, open_store, uri_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import RegisteredModel

EXPERIMENT = "promotions"  # in MLflow, so that the runs of journals are not among trainings
JOURNAL_TAG = "pipeline.journal"
_FIRST = 64 * "0"  # in the place of a digest
_LONGEST = 6000  # characters of a param


class BrokenError(PipelineError):
    """A line of the journal is missing, was changed, or is no line of it."""


class TakenError(PipelineError):
    """Another process has just written the line with this number."""


@dataclass(frozen=True)
class Entry:
    """One change of an alias."""

    number: int  # from 1
    time: str  # UTC
    who: str
    action: Literal["promote", "rollback"]
    alias: str
    before: str | None  # the version that had the alias
    version: str
    run: str  # the name of the run whose model the version is
    run_id: str  # the pipeline's
    model_sha256: str
    forced: bool = False
    reason: str = ""
    checks: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    previous: str = _FIRST  # the SHA-256 of the line before

    def dump(self) -> str:
        """A line of JSON, without its end."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))


def parse(lines: Sequence[str], where: str) -> list[Entry]:
    """The entries of a journal.

    Args:
        lines: as `Entry.dump` wrote them.
        where: what holds them, for the message.

    Raises:
        BrokenError: the chain is not whole.
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


def common(on_disk: Sequence[str], in_mlflow: Sequence[str], where: str) -> list[str]:
    """The longer of two copies of a journal, one of which must be the beginning of the other.

    Raises:
        BrokenError: they differ.
    """
    for number, (one, other) in enumerate(zip(on_disk, in_mlflow, strict=False), 1):
        if one != other:
            raise BrokenError(f"Line {number} of {where} is not what MLflow has.")
    return list(on_disk if len(on_disk) > len(in_mlflow) else in_mlflow)


class Journal:
    """The journal of one registered model, in a store and beside it."""

    def __init__(self, store: Store, path: Path, name: str) -> None:
        """Open it, and complete the copy that lacks lines.

        Args:
            store: opened with the experiment `EXPERIMENT`.
            path: of the copy on disk.
            name: of the registered model.

        Raises:
            BrokenError: a copy is damaged, or they differ.
        """
        self._store, self._path, self.name = store, path, name
        self._run = find_run(store, name)
        on_disk, in_mlflow = read_lines(path), lines_of(self._run)
        parse(in_mlflow, f"the journal of {name} in MLflow")
        self.entries = parse(on_disk, str(path))
        self._lines = common(on_disk, in_mlflow, str(path))
        self.entries = parse(self._lines, str(path))
        self._complete(len(on_disk), len(in_mlflow))

    def last(self, alias: str) -> Entry | None:
        """The latest entry of an alias."""
        return next((entry for entry in reversed(self.entries) if entry.alias == alias), None)

    @property
    def next(self) -> dict[str, Any]:
        """What an entry that is to be written has: `number`, `time` and `previous`."""
        from datetime import UTC, datetime

        previous = hashlib.sha256(self._lines[-1].encode()).hexdigest() if self._lines else _FIRST
        time = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        return {"number": len(self._lines) + 1, "time": time, "previous": previous}

    def append(self, entry: Entry) -> None:
        """Write an entry that follows all others.

        Raises:
            TakenError: another process wrote that line first; `Journal` reads it.
        """
        line = entry.dump()
        if len(line) > _LONGEST:
            raise PipelineError(
                f"The entry has {len(line):,} characters, {_LONGEST:,} fit: shorten --reason."
            )
        self._send(entry.number, line)
        self._lines.append(line)
        self.entries.append(entry)
        self._write()

    def _complete(self, on_disk: int, in_mlflow: int) -> None:
        for number in range(in_mlflow + 1, len(self._lines) + 1):
            self._send(number, self._lines[number - 1])
        if on_disk < len(self._lines):
            self._write()

    def _send(self, number: int, line: str) -> None:
        from mlflow.exceptions import MlflowException

        if self._run is None:
            self.begin()
        assert self._run
        try:
            self._store.client.log_param(self._run.info.run_id, _key(number), line)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise TakenError(
                f"Another promotion of {self.name} was recorded meanwhile: nothing was changed by this one. "
                "Run the same command again."
            ) from None

    def begin(self) -> None:
        """Have a run in MLflow for the lines, the same one for all machines.

        It is named by a tag that the registered model is created with, as only one machine can create that.
        """
        from mlflow.exceptions import MlflowException

        client = self._store.client
        is_there = registered_model(client, self.name) is not None
        if self._run and is_there:
            return
        made = self._run or self._create()
        if not is_there:
            try:
                client.create_registered_model(self.name, {JOURNAL_TAG: made.info.run_id})
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        self._run = find_run(self._store, self.name) or made
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
    """The entries of both copies of a journal; nothing is written.

    Raises:
        BrokenError: one is damaged, they differ, or MLflow lacks lines that the disk has.
        MlflowException: the store can't be reached.
    """
    store = open_store(tracking.model_copy(update={"experiment": EXPERIMENT}), workspace)
    path = path_of(tracking, workspace, name)
    on_disk, in_mlflow = read_lines(path), lines_of(_named_run(store, name))
    parse(on_disk, str(path))
    entries = parse(in_mlflow, f"the journal of {name} in MLflow")
    # Other clones may have written more.
    if len(common(on_disk, in_mlflow, str(path))) > len(in_mlflow):
        lost = len(on_disk) - len(in_mlflow)
        raise BrokenError(
            f"The journal of {name} in MLflow lacks the last {lost} lines of {path}: `pipeline history "
            f"--name {name!r}` restores them."
        )
    return entries


def find_run(store: Store, name: str) -> "Run | None":
    """The run in MLflow that holds the journal; one that somebody deleted is brought back."""
    run = _named_run(store, name)
    if run and run.info.lifecycle_stage == "deleted" and run.data.params:
        store.client.restore_run(run.info.run_id)
    elif run and run.info.lifecycle_stage == "deleted":
        return None
    return run


def registered_model(client: "MlflowClient", name: str) -> "RegisteredModel | None":
    """The registered model with this name, if there is one."""
    return unless_missing(lambda: client.get_registered_model(name))


def _named_run(store: Store, name: str) -> "Run | None":
    """The run that the registered model names, or else the first one that is a journal of it."""
    model = registered_model(store.client, name)
    named = model.tags.get(JOURNAL_TAG) if model else None
    run = unless_missing(lambda: store.client.get_run(named)) if named else None
    return run or store.find({JOURNAL_TAG: name})


def lines_of(run: "Run | None") -> list[str]:
    """The lines that MLflow has, in order."""
    params = run.data.params if run else {}
    return [params[key] for key in sorted(params)]


def read_lines(path: Path) -> list[str]:
    """The lines on disk; none if there is no file."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except UnicodeDecodeError:
        raise BrokenError(f"{path} is damaged: it is no UTF-8.") from None


def path_of(tracking: TrackingSection, workspace: Workspace, name: str) -> Path:
    """Where the copy on disk lies: each store has registered models of its own."""
    return folder_of(tracking, workspace) / f"{name}.jsonl"


def folder_of(tracking: TrackingSection, workspace: Workspace) -> Path:
    """Where the journals of a store lie; those of the repository's own move with it."""
    uri = re.sub(r"://[^/@\s]+@", "://", uri_of(tracking, workspace))
    store = "local" if is_local(tracking, workspace) else hashlib.sha256(uri.encode()).hexdigest()[:12]
    return workspace.scratch / "promotions" / store


def _key(number: int) -> str:
    return f"{number:06d}"
