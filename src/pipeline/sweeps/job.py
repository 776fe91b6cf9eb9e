"""Run one trial of a sweep in a process of the launcher, on this machine or another.

The job writes the trial's state to the sweep's folder, and checks there whether to stop.
"""

import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, ClassVar

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.config.params import read_params
from pipeline.config.schema import Config
from pipeline.environment import Target
from pipeline.errors import PipelineError
from pipeline.processes.context import TrialContext
from pipeline.processes.fork_server import ForkServer
from pipeline.processes.system import die_with_parent
from pipeline.results.report import Trial
from pipeline.sweeps.folder import NO_MORE, Folder
from pipeline.trials.outcome import Outcome
from pipeline.trials.preload import start_fork_server
from pipeline.trials.trial import FailedError, StoppedError, run_trial
from pipeline.trials.worker import Worker

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Each trial leaves some 8 MB in its worker, mostly XLA's compiled code; a new worker takes three seconds.
_TRIALS_OF_A_WORKER = 50


@dataclass(frozen=True)
class Job:
    """The function that a launcher calls with the composed configuration of each trial."""

    repository: Path
    folder: Path
    trials: Mapping[str, Trial]  # by the names of their files, in the order of the launcher
    driver: int  # the id of the process that plans and reports
    stop_at_failure: bool
    server: str  # the address of the fork server on the driver's machine

    # The id of the process that started this one, and whether a trial is running here that needs cleaning up.
    _parent: ClassVar[int] = 0
    _is_running: ClassVar[bool] = False
    # Reused by the trials that this process runs one after the other.
    _own_server: ClassVar[ForkServer | None] = None
    _worker: ClassVar[Worker | None] = None

    def __call__(self, composed: "DictConfig") -> None:
        """Run the launcher's current trial, and write its state to the sweep's folder."""
        from hydra.core.hydra_config import HydraConfig

        name = list(self.trials)[HydraConfig.get().job.num]
        if os.getpid() == self.driver:
            self._run_next(name)
            return
        parent = Job._parent = Job._parent or os.getppid()
        _leave_signals_to_driver(parent)
        if os.getppid() != parent or (parent == 1 and self.driver != 1):
            # The driver died between two trials: the trials still queued here are left to the next driver.
            os._exit(128 + signal.SIGTERM)
        try:
            Job._is_running = True
            self._run_next(name)
        except SystemExit as end:
            # The workspace is removed. The launcher would pass the exception to the driver, which is dead.
            os._exit(int(end.code or 0))
        finally:
            Job._is_running = False

    def _run_next(self, name: str) -> None:
        folder = Folder(self.folder)
        if folder.stop.exists():
            return
        ended = self.run(name, folder)
        if ended and ended.state == "failed" and self.stop_at_failure and not folder.stop.exists():
            write_text(folder.stop, NO_MORE)

    def run(self, name: str, folder: Folder) -> Trial | None:
        """Run a trial, note its state, and return it as ended, or None if it did not start."""
        config, trial = read_params(folder.params(name)), replace(self.trials[name], start=time.time())
        folder.note(name, replace(trial, state="running"))
        ended = self.attempt(config, trial, folder.log(name), TrialContext(differs=trial.differs))
        folder.note(name, ended)
        return ended

    def attempt(self, config: Config, trial: Trial, log: Path, context: TrialContext) -> Trial:
        """Run the stages of `trial` with `config`, and return it as ended."""
        try:
            return trial.ended("done", self._run_stages(config, log, context))
        except StoppedError:
            return trial.ended("stopped")
        except FailedError as error:
            return trial.ended("failed", error=_reason(log, error))
        except PipelineError as error:
            return trial.ended("failed", error=str(error))
        except Exception as error:
            with log.open("a", encoding="utf-8") as file:
                traceback.print_exc(file=file)
            return trial.ended("failed", error=f"{type(error).__name__}: {error}")

    def _run_stages(self, config: Config, log: Path, context: TrialContext) -> Outcome:
        repository, folder = Workspace(self.repository), Folder(self.folder)
        server, worker = self._warm(config.train.target)
        context = replace(context, sweep=folder.root.name, worker=worker.address)
        with (
            log.open("a", encoding="utf-8") as file,
            run_trial(config, repository, folder.code, server, context, file, folder.stops_now) as trial,
        ):
            return Outcome.read(trial.run, trial.history)

    def _warm(self, target: Target) -> tuple[str, Worker]:
        """Return the address of a fork server, and a worker of it.

        A worker that died, ran many trials or has another target is replaced.
        """
        own, worker = Job._own_server, Job._worker
        server = own.address if own else self.server
        if worker and worker.alive and worker.target == target and worker.trials < _TRIALS_OF_A_WORKER:
            worker.trials += 1
            return server, worker
        if worker:
            worker.stop()
        try:
            Job._worker = Worker(server, target)
        except OSError:
            # The server died, or this is not the driver's machine.
            own = Job._own_server = start_fork_server(Folder(self.folder).code, target.backend)
            server, Job._worker = own.address, Worker(own.address, target)
        return server, Job._worker


def _leave_signals_to_driver(parent: int) -> None:
    """Ignore signals to the whole process group while the driver lives: it decides whether to stop."""

    def end_without_driver(number: int, frame: FrameType | None) -> None:
        if os.getppid() != parent:
            if Job._is_running:
                sys.exit(128 + number)
            # Between two trials, the launcher would catch the exception and go on with the next.
            os._exit(128 + number)

    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, end_without_driver)
    # The driver blocked signals when it started this process.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _reason(log: Path, error: FailedError) -> str:
    """Say why a trial failed: by the signal that ended it, or else the error that a stage or DVC printed."""
    if error.signal:
        return f"its process was ended by {error.signal}"
    text = "\n" + log.read_text(encoding="utf-8", errors="replace")
    printed, *of_dvc = text.rsplit("\nERROR: ", maxsplit=1)
    # A message may have several lines.
    if reported := re.findall(r"\nerror: (.*(?:\n.+)*)", printed):
        return " ".join(reported[-1].split())
    if "\nTraceback (most recent call last):" in printed:
        return f"{printed.splitlines()[-1]} (its output is in {log})"
    return of_dvc[0].strip() if of_dvc else f"it ended without an error message; its output is in {log}"
