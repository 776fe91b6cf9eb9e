"""The record of a run on disk: everything that is needed to show the run in MLflow, now or later.

A record is laid out like a workspace (models/, reports/), so the same code shows a run from the record of a
running training, from one that could not be sent, and from a workspace that DVC restored. Records stay in
`.pipeline/runs` until MLflow has their contents: those of trainings in `ID`, those of evaluations in
`ID-EVALUATION`, so that evaluations of one model don't wait for each other.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from pipeline.artifacts.history import Trained
from pipeline.artifacts.processed import read_dataset
from pipeline.artifacts.workspace import Workspace, atomic, copy_file, remove, write_text
from pipeline.config.plain_yaml import load_yaml
from pipeline.config.schema import Config
from pipeline.console import brief, say, warn
from pipeline.errors import PipelineError
from pipeline.processes.context import TrialContext
from pipeline.processes.lock import locked
from pipeline.tracking.identity import (
    complete,
    evaluation_of,
    identify,
    read_run,
    refuse_foreign_model,
    write_run,
)
from pipeline.tracking.lineage import Code, code_of, environment_tags, read_code
from pipeline.tracking.mlflow_run import Status
from pipeline.tracking.occasion import Occasion, keep, now, occasions_of


@dataclass(frozen=True)
class State:
    """The state of a run; times are in milliseconds since 1970, as in MLflow."""

    status: Status
    start: int
    end: int | None = None
    error: str = ""
    sweep: str = ""  # the id of the sweep in which it was trained
    differs: str = ""  # the values in which it differs from the sweep's other runs


class Record:
    """A run on disk.

    Attributes:
        files: The folder with models/ and reports/, as far as they exist.
        run: The contents of models/run.json: `id`, `name`, `config`, `data`, `code`, and `result` at the end.
        occasions: The occasions of its training, the oldest first; empty if none are stored here.
        config: The whole configuration, as plain values.
        evaluation: What identifies the evaluation whose reports are in `files`; None if there is none.
        state: The state of the run; None in a workspace, where only the artifacts are known.
    """

    def __init__(self, files: Workspace, lock: FileLock | None = None) -> None:
        """Open the record in `files`, whose `lock` is held by the process that writes to it.

        Raises:
            PipelineError: If its run.json is missing or the record is damaged.
        """
        self.files, self._lock = files, lock
        self.state: State | None = None
        self.run = read_run(files.run)
        self.id: str = self.run["id"]
        self.name: str = self.run["name"]
        self.occasions = occasions_of(files, self.id)
        try:
            if self._occasion_file.exists():
                own = Occasion.load(self._occasion_file.read_text(encoding="utf-8"))
                self.occasions = [*(other for other in self.occasions if other.id != own.id), own]
            if self._state_file.exists():
                self.state = State(**json.loads(self._state_file.read_text(encoding="utf-8")))
            self.evaluation = self._read_evaluation()
            if not isinstance(self.config.get("tracking", {}), dict):
                raise TypeError("tracking is not a mapping")  # noqa: TRY301
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise PipelineError(f"{files.root} has no complete run ({error}): run `dvc repro`.") from None

    @classmethod
    def start(cls, config: Config, workspace: Workspace, code: Mapping[str, Path]) -> "Record":
        """Start the record of a training, or continue the one of a training that died; see `identify`."""
        run = identify(config, workspace, code)
        files, lock = _claim(workspace, run["id"])
        context = TrialContext.current()
        origin = read_code(Path(context.origin)) if context.origin else code_of(workspace)
        name = config.tracking.run_name or _label(context.differs, config.name, run["id"])
        occasion = Occasion.begin(config, origin, name)
        write_text(files.root / "occasion.json", occasion.dump())
        if not files.run.exists():
            write_run(files.run, run)
        record = cls(files, lock)
        if record.state is None:
            record.state = State("RUNNING", now(), sweep=context.sweep, differs=differs_text(context.differs))
        record.set_state("RUNNING")
        return record

    @classmethod
    def resume(cls, config: Config, workspace: Workspace) -> "Record":
        """Open the record of an evaluation of the run whose model is in `workspace`.

        Raises:
            PipelineError: If the workspace has no run, or its model does not belong to the run.
        """
        run = read_run(workspace.run)
        refuse_foreign_model(run, workspace)
        evaluation = evaluation_of(config.model_dump(mode="json"), read_dataset(workspace))
        files, lock = _claim(workspace, f"{run['id']}-{evaluation['id']}")
        _write_json(files.root / "evaluation.json", evaluation)
        copy_file(workspace.params, files.params)
        # run.json is the last one: it means that the others are complete.
        for artifact in ("model", "onnx", "history", "run"):
            copy_file(getattr(workspace, artifact), getattr(files, artifact))
        record = cls(files, lock)
        record.set_state("FINISHED")  # like its training
        return record

    @property
    def config(self) -> dict[str, Any]:
        """The whole configuration as plain values, or the part of it that is in models/run.json."""
        if self.files.params.exists():
            values = load_yaml(self.files.params.read_text(encoding="utf-8"))
            return dict(values)
        if self.occasions:
            return dict(self.occasions[0].config)
        inputs = dict(self.run["config"])
        digests = [key for key in inputs if key.startswith("modules.")]
        return inputs | {"modules": {key.removeprefix("modules."): inputs.pop(key) for key in digests}}

    @property
    def tracking(self) -> dict[str, Any]:
        """The section `tracking` of the configuration; empty if it is not known."""
        return dict(self.config.get("tracking", {}))

    @property
    def origin(self) -> dict[str, str]:
        """The code, the machine and the packages of the first occasion, as tags.

        If no occasions are stored here, these are the packages of this machine, which restored the model.
        """
        if not self.occasions:
            return {**Code().tags, **environment_tags()}
        return {**self.occasions[0].code.tags, **self.occasions[0].tags}

    @property
    def label(self) -> str:
        """The name that the run gets when it is created in MLflow."""
        if self.occasions:
            return self.occasions[0].label
        name = self.config.get("name")
        return _label({}, name, self.id) if name else self.name

    def release(self) -> None:
        """Let other processes send or complete the record; this happens by itself if the process dies."""
        if self._lock:
            self._lock.release()

    def set_state(self, status: Status, error: str = "") -> None:
        """Set the state of the run, first in memory, so that MLflow gets it even if the disk is full."""
        # The run ends with its training; an evaluation days later does not change its duration.
        state = self.state or State(status, now())
        end = state.end or (None if status == "RUNNING" else now())
        self.state = replace(state, status=status, end=end, error=error)
        _write_json(self._state_file, asdict(self.state))

    def finish_training(self, result: Trained, workspace: Workspace) -> None:
        """Complete run.json, write it to `workspace`, and keep a copy of the models and the occasion."""
        copy_file(workspace.history, self.files.history)
        copy_file(workspace.model, self.files.model)
        copy_file(workspace.onnx, self.files.onnx)
        occasion = self.occasions[-1].ended(result.weights_sha256, result.cpu_seconds)
        write_text(self._occasion_file, occasion.dump())
        keep(occasion, self.id, workspace)
        run = complete(self.run, result, workspace.model)
        write_run(self.files.run, run)
        copy_file(self.files.run, workspace.run)
        self.occasions[-1] = occasion
        # Last, because from now on the thread that sends the run also sends the model.
        self.run = run

    def add_evaluation(self, workspace: Workspace) -> None:
        """Keep a copy of the reports of `workspace`, and of what people should see of its data."""
        for path in workspace.data_report:
            copy_file(path, self.files.root / path.relative_to(workspace.root))
        with atomic(self.files.metrics.parent) as temporary:
            shutil.copytree(workspace.metrics.parent, temporary)

    def discard(self) -> None:
        """Remove the record, because MLflow has all of it."""
        remove(self.files.root)
        remove(self.files.root.with_suffix(".lock"))
        self.release()

    def sending(self) -> AbstractContextManager[None]:
        """Keep other processes of the repository from sending the same run at the same time."""
        return locked(self.files.scratch / "runs" / f"{self.id}.sending.lock")

    def _read_evaluation(self) -> dict[str, Any] | None:
        path = self.files.root / "evaluation.json"
        if path.exists():
            evaluation: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return evaluation
        if self.files.metrics.exists() and self.files.dataset.exists() and self.files.params.exists():
            return evaluation_of(self.config, read_dataset(self.files))
        return None

    @property
    def _state_file(self) -> Path:
        return self.files.root / "state.json"

    @property
    def _occasion_file(self) -> Path:
        return self.files.root / "occasion.json"


def _label(differs: Mapping[str, str], name: str, run_id: str) -> str:
    """Return a run's name made of the values that differ or else of `name`: "learning_rate=0.01-3f2a9c"."""
    values = ",".join(f"{key.rpartition('.')[2]}={brief(value)}" for key, value in differs.items())
    return f"{values[:80] or name}-{run_id[:6]}"


def differs_text(differs: Mapping[str, str]) -> str:
    """Return the values in which a trial differs from the others of its sweep, as a tag of its run."""
    return ", ".join(f"{key}={value}" for key, value in differs.items())


def unsent(workspace: Workspace) -> Iterator[Record]:
    """Yield the records that MLflow does not have yet and that no process is writing, locked.

    A run whose process died is marked as KILLED; a damaged record is skipped with a warning.
    """
    for files, lock in _unlocked(workspace):
        try:
            record = Record(files, lock)
            if record.state is None or record.state.status == "RUNNING":
                record.set_state("KILLED", "its process died")
            yield record
        except PipelineError:
            # If the file is gone, another process has just sent the run.
            if files.run.exists():
                warn(f"{files.root} is damaged: it is not sent to MLflow.")


def waiting(workspace: Workspace) -> int:
    """Return how many records MLflow does not have yet, without those that a process is writing."""
    return sum(1 for _ in _unlocked(workspace))


def _unlocked(workspace: Workspace) -> Iterator[tuple[Workspace, FileLock]]:
    """Yield the folder and the lock of each record that no process is writing, and lock it meanwhile."""
    for path in sorted((workspace.scratch / "runs").glob("*/models/run.json")):
        files = Workspace(path.parents[1])
        lock = _lock(files)
        try:
            lock.acquire(0)
        except Timeout:
            continue
        try:
            yield files, lock
        finally:
            lock.release()


def _claim(workspace: Workspace, name: str) -> tuple[Workspace, FileLock]:
    """Return the folder of a record and its lock, which this process now holds."""
    files = Workspace(workspace.scratch / "runs" / name)
    files.root.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(files)
    try:
        lock.acquire(0)
    except Timeout:
        say("Waiting for another process that is training or evaluating the same run.")
        lock.acquire()
    return files, lock


def _lock(files: Workspace) -> FileLock:
    # The thread that sends the record releases the lock.
    return FileLock(files.root.with_suffix(".lock"), thread_local=False)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
