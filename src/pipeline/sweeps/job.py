"""One trial of a sweep, as a launcher runs it in one of its processes, on this machine or another.

It reads its values in the sweep's folder, since conf/ may have changed; it tells there how it stands, and
looks there whether to stop.
"""

import os
import signal
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.config.params import read_params
from pipeline.config.schema import Config
from pipeline.errors import PipelineError
from pipeline.processes.context import TrialContext
from pipeline.processes.fork_server import ForkServer
from pipeline.processes.system import die_with_parent
from pipeline.sweeps.folder import NO_MORE, Folder, Progress
from pipeline.trials.preload import start_fork_server
from pipeline.trials.trial import Outcome, StoppedError, reproduced
from pipeline.trials.worker import Worker

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Each leaves some 8 MB in it, what XLA compiled above all, and a new one costs three seconds.
_TRIALS_OF_A_WORKER = 50


@dataclass(frozen=True)
class Job:
    """What a launcher calls with each trial's composed configuration."""

    repository: Path
    folder: Path
    keys: tuple[str, ...]  # of the trials, in the launcher's order
    driver: int  # the process that plans and reports
    stop_at_failure: bool
    differs: Mapping[str, Mapping[str, str]]  # by the trials' keys
    server: str  # the address of the fork server on the driver's machine

    # What this process uses for one trial after the other.
    _own_server: ClassVar[ForkServer | None] = None
    _worker: ClassVar[Worker | None] = None

    def __call__(self, composed: "DictConfig") -> None:
        """Run the trial that the launcher has come to; what becomes of it is told by its `Progress`."""
        from hydra.core.hydra_config import HydraConfig

        if os.getpid() != self.driver:
            die_with_parent()
            # Whether to stop is for the driver to say.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        folder, key = Folder(self.folder), self.keys[HydraConfig.get().job.num]
        if folder.stop.exists():
            return
        progress = self.run(key, folder)
        if progress and progress.state == "failed" and self.stop_at_failure and not folder.stop.exists():
            write_text(folder.stop, NO_MORE)

    def run(self, key: str, folder: Folder) -> Progress | None:
        """Run a trial, note how it stands, and give how it ended; None: it did not start."""
        config, begun = read_params(folder.params(key)), Progress("running", time.time())
        folder.note(key, begun)
        ended = self.attempt(config, begun, folder.log(key), TrialContext(differs=self.differs[key]))
        folder.note(key, ended)
        return ended

    def attempt(self, config: Config, begun: Progress, log: Path, context: TrialContext) -> Progress:
        """How a trial with `config` ended that began as `begun`."""
        try:
            outcome = self._reproduce(config, log, context)
            ended = replace(begun, state="done", outcome=outcome)
        except StoppedError:
            ended = replace(begun, state="stopped")
        except PipelineError as error:
            ended = replace(begun, state="failed", error=str(error))
        except Exception as error:
            with log.open("a", encoding="utf-8") as file:
                traceback.print_exc(file=file)
            ended = replace(begun, state="failed", error=f"{type(error).__name__}: {error}")
        return replace(ended, seconds=time.time() - begun.start)

    def _reproduce(self, config: Config, log: Path, context: TrialContext) -> Outcome:
        repository, folder = Workspace(self.repository), Folder(self.folder)
        server, worker = self._warm(config.train.threads)
        context = replace(context, sweep=folder.root.name, worker=worker.address)
        with log.open("a", encoding="utf-8") as file:
            try:
                with reproduced(
                    config, repository, folder.code, server, context, file, folder.stops_now
                ) as trial:
                    return Outcome.read(trial.run, trial.history)
            except PipelineError:
                reason = _reason(log)
        raise PipelineError(reason)

    def _warm(self, threads: int) -> tuple[str, Worker]:
        """A fork server, and a worker of it; what died, has grown or has other threads is replaced."""
        own, worker = Job._own_server, Job._worker
        server = own.address if own else self.server
        if worker and worker.alive and worker.threads == threads and worker.trials < _TRIALS_OF_A_WORKER:
            worker.trials += 1
            return server, worker
        if worker:
            worker.stop()
        try:
            Job._worker = Worker(server, threads)
        except OSError:
            # It died, or this is another machine than the driver's.
            own = Job._own_server = start_fork_server(Folder(self.folder).code)
            server, Job._worker = own.address, Worker(own.address, threads)
        return server, Job._worker


def _reason(log: Path) -> str:
    """What a stage said why it failed: an error, or the last line of whatever else."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines
    return said[-1] if said else f"it ended without a word in {log}"
