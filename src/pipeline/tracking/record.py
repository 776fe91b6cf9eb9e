"""The record of a run on disk: all that is needed to show it in MLflow, now or later.

A record is laid out like a workspace (models/, reports/), so a run is shown by the same code from the
record of a running training, from one that could not be sent, and from a workspace that DVC restored.
Records lie in `.pipeline/runs/ID` until MLflow has what they hold.
"""

import json
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from pipeline.artifacts.history import Trained
from pipeline.artifacts.workspace import Workspace, atomic, remove, write_text
from pipeline.config.schema import Config
from pipeline.console import brief
from pipeline.errors import PipelineError
from pipeline.processes.context import TrialContext
from pipeline.tracking.lineage import lineage

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class State:
    """How a run stands; times in milliseconds since 1970, as MLflow has them."""

    status: Status
    start: int
    end: int | None = None
    error: str = ""
    sweep: str = ""  # the id of the sweep in which it was trained
    differs: str = ""  # and the values by which it differs from the sweep's others


class Record:
    """A run on disk.

    `files` has models/ and reports/ as far as they exist, `run` is models/run.json, and `state` says how
    the run stands: None in a workspace, where only the artifacts are known.
    """

    def __init__(self, files: Workspace, lock: FileLock | None = None) -> None:
        """Open the record in `files`, whose `lock` is held by whoever writes to it.

        Raises:
            PipelineError: its run.json is missing or damaged.
        """
        self.files, self._lock = files, lock
        self.state: State | None = None
        try:
            self.run: dict[str, Any] = json.loads(files.run.read_text(encoding="utf-8"))
            self.id: str = self.run["id"]
            self.name: str = self.run["name"]
            self.experiment: str = self.run["config"]["tracking"]["experiment"]
            if self._state_file.exists():
                self.state = State(**json.loads(self._state_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PipelineError(f"{files.run} names no run ({error}): run `dvc repro`.") from None

    @classmethod
    def start(cls, config: Config, workspace: Workspace) -> "Record":
        """Begin the record of a training in `workspace`, or go on with that of one whose process died."""
        origin = {"config": config.model_dump(mode="json"), **lineage(workspace)}
        for record in _abandoned(workspace):
            if {key: record.run.get(key) for key in origin} == origin:
                return record
        number = uuid.uuid4().hex
        files, lock = _claim(workspace, number)
        sweep, differs = _trial_of_a_sweep()
        label = ",".join(f"{key.rpartition('.')[2]}={brief(value)}" for key, value in differs.items())
        name = f"{label[:80] or f'{config.name}-seed{config.seed}'}-{number[:4]}"
        _write_json(files.run, {"id": number, "name": config.tracking.run_name or name, **origin})
        record = cls(files, lock)
        record.state = State("RUNNING", now(), sweep=sweep, differs=differs_text(differs))
        record.set_state("RUNNING")
        return record

    @classmethod
    def resume(cls, workspace: Workspace) -> "Record":
        """The record of the run whose model is in `workspace`, to add an evaluation to.

        Raises:
            PipelineError: the workspace has no run, or another process writes to its record.
        """
        files, lock = _claim(workspace, cls(workspace).id)
        # run.json last: it says that the rest is there.
        for artifact in ("model", "history", "run"):
            _copy(getattr(workspace, artifact), getattr(files, artifact))
        record = cls(files, lock)
        record.set_state("RUNNING")
        return record

    def release(self) -> None:
        """Let other processes send or complete the record; the system does so when this one dies."""
        if self._lock:
            self._lock.release()

    def set_state(self, status: Status, error: str = "") -> None:
        """Note how the run stands now, first of all in memory, lest a full disk hide it from MLflow."""
        # The run ends with its training; evaluating it again, days later, does not make it longer.
        state = self.state or State(status, now())
        end = state.end or (None if status == "RUNNING" else now())
        self.state = replace(state, status=status, end=end, error=error)
        _write_json(self._state_file, asdict(self.state))

    def finish_training(self, result: Trained, workspace: Workspace) -> None:
        """Complete run.json, put it into `workspace` and keep a copy of the model."""
        _copy(workspace.history, self.files.history)
        _copy(workspace.model, self.files.model)
        run = self.run | {"result": asdict(result)}
        _write_json(self.files.run, run)
        _copy(self.files.run, workspace.run)
        # Last, since whoever sends the run beside the training now takes the model.
        self.run = run

    def add_evaluation(self, workspace: Workspace) -> None:
        """Keep a copy of the reports of `workspace`, and of the values that they were made with."""
        _copy(workspace.params, self.files.params)
        with atomic(self.files.metrics.parent) as temporary:
            shutil.copytree(workspace.metrics.parent, temporary)

    def discard(self) -> None:
        """MLflow has all of it."""
        remove(self.files.root)
        remove(self.files.root.with_suffix(".lock"))
        self.release()

    @property
    def _state_file(self) -> Path:
        return self.files.root / "state.json"


def _trial_of_a_sweep() -> tuple[str, dict[str, str]]:
    """The id of the sweep whose trial this process trains, and what differs in it; else nothing."""
    context = TrialContext.current()
    return context.sweep, dict(context.differs)


def differs_text(differs: Mapping[str, str]) -> str:
    """The values by which a trial differs from the others of its sweep, as the tag of its run has them."""
    return ", ".join(f"{key}={value}" for key, value in differs.items())


def unsent(workspace: Workspace) -> Iterator[Record]:
    """The records that MLflow does not have yet and that no live process writes.

    A run whose process died is marked KILLED on the way; a damaged record is named and left alone.
    """
    for record in _unclaimed(workspace):
        if record.state is None or record.state.status == "RUNNING":
            record.set_state("KILLED", "its process died")
        yield record
        record.release()


def _abandoned(workspace: Workspace) -> Iterator[Record]:
    """The records of trainings whose process died; the one that the caller stops at stays locked."""
    for record in _unclaimed(workspace):
        if record.state and record.state.status == "RUNNING" and "result" not in record.run:
            yield record
        record.release()


def _unclaimed(workspace: Workspace) -> Iterator[Record]:
    """The whole records that no live process writes, locked."""
    for path in sorted((workspace.scratch / "runs").glob("*/models/run.json")):
        try:
            files, lock = _claim(workspace, path.parents[1].name, timeout=0)
        except BusyError:
            continue
        try:
            yield Record(files, lock)
        except PipelineError:
            # If the file is gone, another process has just sent the run.
            if files.run.exists():
                print(f"warning: {files.root} is damaged: it is not sent to MLflow.", file=sys.stderr)
            lock.release()


@contextmanager
def alone(workspace: Workspace, number: str) -> Iterator[None]:
    """Keep other processes from writing or sending the run meanwhile.

    Raises:
        BusyError: another process does.
    """
    files, lock = _claim(workspace, number)
    with lock:
        yield
        remove(files.root.with_suffix(".lock"))


class BusyError(PipelineError):
    """Another process writes or sends the run."""


def _claim(workspace: Workspace, number: str, timeout: float = 60) -> tuple[Workspace, FileLock]:
    files = Workspace(workspace.scratch / "runs" / number)
    files.root.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(files.root.with_suffix(".lock"))
    try:
        lock.acquire(timeout)
    except Timeout:
        raise BusyError("Another process evaluates or sends this run: try again when it is done.") from None
    return files, lock


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _copy(source: Path, target: Path) -> None:
    with atomic(target) as temporary:
        shutil.copyfile(source, temporary)


def now() -> int:
    """The time in milliseconds since 1970, as MLflow has it."""
    return int(time.time() * 1000)
