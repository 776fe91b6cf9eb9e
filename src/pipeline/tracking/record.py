"""The record of a run on disk: all that is needed to show it in MLflow, now or later.

A record is laid out like a workspace (models/, reports/), so a run is shown by the same code from the
record of a running training, from one that could not be sent, and from a workspace that DVC restored.
Records lie in `.pipeline/runs` until MLflow has what they hold: of a training in `ID`, of an evaluation in
`ID-EVALUATION`, so that evaluations of one model don't wait for each other.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from filelock import FileLock, Timeout

from pipeline.artifacts.history import Trained
from pipeline.artifacts.processed import read_dataset
from pipeline.artifacts.workspace import Workspace, atomic, remove, write_text
from pipeline.config.schema import Config
from pipeline.console import say, warn
from pipeline.errors import PipelineError
from pipeline.processes.context import TrialContext
from pipeline.tracking.identity import (
    complete,
    evaluation_of,
    identify,
    read_run,
    refuse_foreign_model,
    write_run,
)
from pipeline.tracking.lineage import Code, code_of, environment_tags, read_code
from pipeline.tracking.occasion import Occasion, keep, label_of, now, occasions_of

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

    Args:
        files: has models/ and reports/ as far as they exist.
        run: what models/run.json says: `id`, `name`, `config`, `data`, `code`; `result` at the end.
        occasions: of its training, the first one first; empty if none is known here.
        config: the whole configuration, as plain values.
        evaluation: what tells the evaluation whose reports `files` has from others; None: there is none.
        state: how the run stands; None in a workspace, where only the artifacts are known.
    """

    def __init__(self, files: Workspace, lock: FileLock | None = None) -> None:
        """Open the record in `files`, whose `lock` is held by the process that writes to it.

        Raises:
            PipelineError: its run.json is missing or damaged.
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
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise PipelineError(f"{files.root} holds no whole run ({error}): run `dvc repro`.") from None

    @classmethod
    def start(cls, config: Config, workspace: Workspace, code: Mapping[str, Path]) -> "Record":
        """Begin the record of a training in `workspace`, or go on with that of one whose process died.

        Args:
            config: all of it.
            workspace: has data/processed.
            code: the files that the training depends on, by the names that dvc.yaml has for them.
        """
        run = identify(config, workspace, code)
        files, lock = _claim(workspace, run["id"])
        context = TrialContext.current()
        origin = read_code(Path(context.origin)) if context.origin else code_of(workspace)
        name = _label(label_of(context.differs) or config.name, run["id"])
        occasion = Occasion.begin(config, origin, config.tracking.run_name or name)
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
        """The record of an evaluation of the run whose model is in `workspace`.

        Raises:
            PipelineError: the workspace has no run, or a model that is not its run's.
        """
        run = read_run(workspace.run)
        refuse_foreign_model(run, workspace)
        evaluation = evaluation_of(config.model_dump(mode="json"), read_dataset(workspace))
        files, lock = _claim(workspace, f"{run['id']}-{evaluation['id']}")
        _write_json(files.root / "evaluation.json", evaluation)
        _copy(workspace.params, files.params)
        # run.json last: it says that the rest is there.
        for artifact in ("model", "onnx", "history", "run"):
            _copy(getattr(workspace, artifact), getattr(files, artifact))
        record = cls(files, lock)
        record.set_state("FINISHED")  # as its training is
        return record

    @property
    def config(self) -> dict[str, Any]:
        """The whole configuration as plain values, or what of it the run's own inputs tell."""
        if self.files.params.exists():
            values = yaml.load(self.files.params.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
            return dict(values)
        if self.occasions:
            return dict(self.occasions[0].config)
        inputs = dict(self.run["config"])
        digests = [key for key in inputs if key.startswith("modules.")]
        return inputs | {"modules": {key.removeprefix("modules."): inputs.pop(key) for key in digests}}

    @property
    def experiment(self) -> str | None:
        """The MLflow experiment that the run belongs to; None: not known."""
        name: str | None = self.config.get("tracking", {}).get("experiment")
        return name

    @property
    def run_name(self) -> str | None:
        """What the configuration asks MLflow to call the run; None: nothing in particular."""
        name: str | None = self.config.get("tracking", {}).get("run_name")
        return name

    @property
    def origin(self) -> dict[str, str]:
        """The code, the machine and the packages of the first occasion, as tags; of a run whose occasions are
        not known here, this machine's packages, with which its model was restored.
        """
        if not self.occasions:
            return {**Code().tags, **environment_tags()}
        return {**self.occasions[0].code.tags, **self.occasions[0].tags}

    @property
    def label(self) -> str:
        """What MLflow calls the run if it does not have it yet."""
        if self.occasions:
            return self.occasions[0].label
        return _label(self.config.get("name", self.run["data"]["name"]), self.id)

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
        """Complete run.json, put it into `workspace`, keep a copy of the models and the occasion."""
        _copy(workspace.history, self.files.history)
        _copy(workspace.model, self.files.model)
        _copy(workspace.onnx, self.files.onnx)
        occasion = self.occasions[-1].ended(result.weights_sha256, result.cpu_seconds)
        write_text(self._occasion_file, occasion.dump())
        keep(occasion, self.id, workspace)
        run = complete(self.run, result, workspace.model)
        write_run(self.files.run, run)
        _copy(self.files.run, workspace.run)
        self.occasions[-1] = occasion
        # Last, since what sends the run beside the training now takes the model.
        self.run = run

    def add_evaluation(self, workspace: Workspace) -> None:
        """Keep a copy of the reports of `workspace`."""
        with atomic(self.files.metrics.parent) as temporary:
            shutil.copytree(workspace.metrics.parent, temporary)

    def discard(self) -> None:
        """MLflow has all of it."""
        remove(self.files.root)
        remove(self.files.root.with_suffix(".lock"))
        self.release()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Keep other processes of the repository from sending the same run meanwhile."""
        lock = self.files.scratch / "runs" / f"{self.id}.sending.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            yield
            lock.unlink(missing_ok=True)

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


def _label(of: str, run_id: str) -> str:
    return f"{of}-{run_id[:6]}"


def differs_text(differs: Mapping[str, str]) -> str:
    """The values by which a trial differs from the others of its sweep, as the tag of its run has them."""
    return ", ".join(f"{key}={value}" for key, value in differs.items())


def unsent(workspace: Workspace) -> Iterator[Record]:
    """The records that MLflow does not have yet and that no live process writes, locked.

    A run whose process died is marked KILLED on the way; a damaged record is named and left alone.
    """
    for path in sorted((workspace.scratch / "runs").glob("*/models/run.json")):
        try:
            files, lock = _claim(workspace, path.parents[1].name, timeout=0)
        except BusyError:
            continue
        try:
            record = Record(files, lock)
            if record.state is None or record.state.status == "RUNNING":
                record.set_state("KILLED", "its process died")
            yield record
        except PipelineError:
            # If the file is gone, another process has just sent the run.
            if files.run.exists():
                warn(f"{files.root} is damaged: it is not sent to MLflow.")
        finally:
            lock.release()


class BusyError(PipelineError):
    """Another process writes the record."""


def _claim(workspace: Workspace, name: str, timeout: float | None = None) -> tuple[Workspace, FileLock]:
    """The folder of a record, and its lock, which is waited for (None: as long as it takes)."""
    files = Workspace(workspace.scratch / "runs" / name)
    files.root.parent.mkdir(parents=True, exist_ok=True)
    # It is released by the thread that sends the record.
    lock = FileLock(files.root.with_suffix(".lock"), thread_local=False)
    try:
        lock.acquire(0)
    except Timeout:
        if timeout == 0:
            raise BusyError("Another process writes this run.") from None
        say("Another process trains or evaluates the same run: waiting for it.")
        lock.acquire()
    return files, lock


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _copy(source: Path, target: Path) -> None:
    with atomic(target) as temporary:
        shutil.copyfile(source, temporary)
