"""The record of a run on disk: all that is needed to show it in MLflow, now or later.

A record is laid out like a workspace (models/, reports/), so a run is shown by the same code from the
record of a running training, from one that could not be sent, and from a workspace that DVC restored.
Records lie in `.pipeline/runs/ID` until MLflow has what they hold.
"""

import json
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.tracking.lineage import lineage
from pipeline.training.history import Trained
from pipeline.workspace import Workspace, remove, write_text

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class State:
    """How a run stands; times in milliseconds since 1970, as MLflow has them."""

    status: Status
    start: int
    end: int | None = None
    error: str = ""


class Record:
    """A run on disk. `files` has models/ and reports/ as far as they exist; `run` is models/run.json."""

    def __init__(self, files: Workspace, lock: FileLock | None = None) -> None:
        """Open the record in `files`, whose `lock` is held by whoever writes to it.

        Raises:
            PipelineError: its run.json is missing or damaged.
        """
        self.files, self._lock = files, lock
        try:
            self.run: dict[str, Any] = json.loads(files.run.read_text(encoding="utf-8"))
            self.id: str = self.run["id"]
            self.name: str = self.run["name"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PipelineError(f"{files.run} names no run ({error}): run `dvc repro`.") from None

    @classmethod
    def start(cls, config: Config, workspace: Workspace) -> "Record":
        """Begin the record of a training in `workspace`."""
        number = uuid.uuid4().hex
        files, lock = _claim(workspace, number)
        run = {
            "id": number,
            "name": config.tracking.run_name or f"{config.name}-seed{config.seed}-{number[:4]}",
            "config": config.model_dump(mode="json"),
            **lineage(workspace),
        }
        _write_json(files.run, run)
        record = cls(files, lock)
        record.set_state("RUNNING")
        return record

    @classmethod
    def resume(cls, workspace: Workspace) -> "Record":
        """The record of the run whose model is in `workspace`, to add an evaluation to."""
        record, lock = _claim(workspace, cls(workspace).id)
        for source, target in (
            (workspace.run, record.run),
            (workspace.history, record.history),
            (workspace.model, record.model),
        ):
            _copy(source, target)
        return cls(record, lock)

    def release(self) -> None:
        """Let other processes send or complete the record; the system does so when this one dies."""
        if self._lock:
            self._lock.release()

    @property
    def state(self) -> State:
        """How the run stands; one that DVC restored has finished."""
        try:
            return State(**json.loads(self._state_file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return State("FINISHED", start=_now())

    def set_state(self, status: Status, error: str = "") -> None:
        """Write down how the run stands now."""
        start = self.state.start if self._state_file.exists() else _now()
        _write_json(
            self._state_file, asdict(State(status, start, None if status == "RUNNING" else _now(), error))
        )

    def finish_training(self, result: Trained, workspace: Workspace) -> None:
        """Complete run.json, put it into `workspace` and keep a copy of the model."""
        self.run["result"] = asdict(result)
        _write_json(self.files.run, self.run)
        _copy(workspace.history, self.files.history)
        _copy(workspace.model, self.files.model)
        _copy(self.files.run, workspace.run)

    def add_evaluation(self, workspace: Workspace) -> None:
        """Keep a copy of the reports of `workspace`."""
        remove(self.files.metrics.parent)
        shutil.copytree(workspace.metrics.parent, self.files.metrics.parent)

    def discard(self) -> None:
        """MLflow has all of it."""
        remove(self.files.root)
        remove(self.files.root.with_suffix(".lock"))
        self.release()

    @property
    def _state_file(self) -> Path:
        return self.files.root / "state.json"


def unsent(workspace: Workspace) -> Iterator[Record]:
    """The records that MLflow does not have yet and that no live process writes, oldest first.

    A run whose process died is marked KILLED on the way.
    """
    folder = workspace.scratch / "runs"
    for path in sorted(folder.glob("*/models/run.json"), key=lambda path: path.stat().st_mtime):
        number = path.parents[1].name
        try:
            files, lock = _claim(workspace, number, timeout=0)
        except Timeout:
            continue
        try:
            if files.run.exists():
                record = Record(files, lock)
                if record.state.status == "RUNNING":
                    record.set_state("KILLED", "its process died")
                yield record
        finally:
            lock.release()


def _claim(workspace: Workspace, number: str, timeout: float = 60) -> tuple[Workspace, FileLock]:
    files = Workspace(workspace.scratch / "runs" / number)
    files.root.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(files.root.with_suffix(".lock"))
    lock.acquire(timeout)
    return files, lock


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _now() -> int:
    return int(time.time() * 1000)
