"""Run a sweep, grid or search: make its folder with a snapshot of the code, launch the trials, and report."""

import hashlib
import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from filelock import Timeout

from pipeline.artifacts.workspace import remove, sha256
from pipeline.config.compose import compose_each
from pipeline.config.schema import Config
from pipeline.console import count, say
from pipeline.errors import PipelineError, exit_on_error
from pipeline.processes.fork_server import Fork, ForkServer
from pipeline.processes.lock import locked
from pipeline.processes.temporary import own_temporary_folder
from pipeline.results import leaderboard, publish
from pipeline.results.learning_curve import curves
from pipeline.results.live import watching
from pipeline.results.report import Report, Trial
from pipeline.sweeps.command import Command
from pipeline.sweeps.folder import Folder
from pipeline.sweeps.job import Job
from pipeline.sweeps.launch import launch, stopping
from pipeline.tracking.database import find_run
from pipeline.tracking.mlflow_run import ID_TAG, Status
from pipeline.tracking.occasion import now
from pipeline.tracking.store import is_local
from pipeline.trials.layout import snapshot, sources
from pipeline.trials.preload import DVC, start_fork_server
from pipeline.trials.trial import remove_abandoned, restore

if TYPE_CHECKING:
    from hydra.types import HydraContext
    from omegaconf import DictConfig


class Sweep(ABC):
    """The trials of a command, and how they are chosen."""

    sweeper: ClassVar[str]  # the name of the sweeper
    folder: Folder
    start: int  # milliseconds since 1970

    def __init__(self, command: Command) -> None:
        self.command = command

    @property
    @abstractmethod
    def identity(self) -> list[str]:
        """What identifies the sweep, in addition to the code."""

    @property
    @abstractmethod
    def config(self) -> Config:
        """The configuration of one of its trials."""

    def begin(self, folder: Folder) -> None:
        """Prepare the folder, which already has the snapshot of the code."""
        self.folder, self.start = folder, now()

    @abstractmethod
    def trials(self) -> list[Trial]:
        """Return the current state of all trials."""

    @abstractmethod
    def waiting(self) -> dict[str, Trial]:
        """Return the trials that the launcher has yet to run, by the names of their files."""

    def job(self, server: str) -> Job:
        """Return what the launcher calls for each trial; `server` is the address of a fork server."""
        repository, folder = self.command.repository.root, self.folder.root
        stop_at_failure = self.command.composed.sweep.on_failure == "stop"
        return Job(repository, folder, self.waiting(), os.getpid(), stop_at_failure, server)

    def report(self) -> Report:
        """Return a report of the current state of the sweep."""
        composed = self.command.composed
        return Report(
            id=self.folder.root.name,
            name=f"sweep-{composed.name}-{self.folder.root.name[:4]}",
            command=self.command.command_line,
            sweeper=self.sweeper,
            launcher=self.command.launcher,
            objectives=composed.sweep.objectives,
            space=self.command.space,
            tracking=composed.tracking.model_dump(mode="json"),
            start=self.start,
            trials=tuple(self.trials()),
        )


def run(
    kind: type[Sweep], arguments: Sequence[str], hydra_context: "HydraContext", config: "DictConfig"
) -> None:
    """Run a sweep, and exit with code 0 if all trials have a result or were pruned."""
    with exit_on_error():
        sweep = kind(Command.read(arguments, hydra_context, config))
        with _opened(sweep) as server:
            sys.exit(_run(sweep, server))


@contextmanager
def _opened(sweep: Sweep) -> Iterator[ForkServer]:
    """Make the sweep's folder with a snapshot of the code and conf/, and start a fork server of that code."""
    repository = sweep.command.repository
    remove_abandoned(repository.scratch / "trials")
    for left_over in [*repository.sweeps.glob("*/code"), *repository.sweeps.glob("*.lock")]:
        with suppress(Timeout), locked(repository.sweeps / f"{_id_in(left_over)}.lock", timeout=0):
            remove(repository.sweeps / _id_in(left_over) / "code")
    digest = hashlib.sha256("".join(sweep.identity).encode())
    for path in sources(repository, repository.root / "src" / "pipeline"):
        digest.update(sha256(path).encode())
    folder = Folder(repository.sweeps / digest.hexdigest()[:16])
    try:
        with locked(folder.root.with_suffix(".lock"), timeout=0), own_temporary_folder():
            try:
                remove(folder.stop)
                snapshot(repository, folder.code.root, sweep.config, "conf")
                with start_fork_server(folder.code, sweep.config.train.backend) as server:
                    sweep.begin(folder)
                    yield server
            finally:
                remove(folder.code.root)
    except Timeout:
        raise PipelineError("The same sweep is running in another process: wait until it ends.") from None


def _id_in(path: Path) -> str:
    """Return the id of the sweep whose lock file, or code folder, `path` is."""
    return path.parent.name if path.name == "code" else path.stem


def _run(sweep: Sweep, server: ForkServer) -> int:
    """Run the trials that are not known, report, and return the exit code."""
    folder, waiting, workers = sweep.folder, sweep.waiting(), sweep.command.workers(sweep.config.train.device)
    for name in waiting:
        folder.forget(name)
    report = sweep.report()
    report.write(folder.root)
    say(plan_of(report, workers))
    arrived: list[int] = []
    failure: PipelineError | None = None
    try:
        if waiting:
            # In parallel with the first trials, which reach MLflow later than this.
            publishing = threading.Thread(target=_publish, args=(sweep, server), daemon=True)
            publishing.start()
            with watching(sweep.report, workers), stopping(folder) as arrived:
                try:
                    launch(sweep.job(server.address), sweep.command, workers)
                except PipelineError as error:
                    failure = error
            publishing.join()
    except BaseException:
        # There is no time to publish it now; `pipeline sync` or the next sweep does that.
        replace(sweep.report(), status="KILLED", end=now()).write(folder.root)
        raise
    report = sweep.report()
    is_complete = all(trial.state in ("known", "done", "pruned") for trial in report.trials)
    status: Status = "KILLED" if arrived else "FINISHED" if is_complete else "FAILED"
    report = replace(report, status=status, end=now())
    report.write(folder.root)
    _restore_lost(report, sweep)
    board = leaderboard.rank(report)
    leaderboard.show(board)
    if caution := leaderboard.caution(board):
        say(caution)
    say(*(curve.text for curve in curves(board) if curve.text))
    _publish(sweep, server)
    say(*leaderboard.next_steps(board))
    for trial in report.trials:
        if trial.state == "failed":
            print(f"error: {leaderboard.label_of(trial.differs)}: {trial.error}", file=sys.stderr)
    if failure:
        raise failure
    if arrived:
        say("Stopped; run the same command again to continue.")
        return 128 + arrived[0]
    return 0 if is_complete else 1


def _publish(sweep: Sweep, server: ForkServer) -> None:
    """Publish the report of the sweep in MLflow."""
    arguments = [str(sweep.folder.root), str(sweep.command.repository.root)]
    # If all is known, this process publishes sooner than the server could import what that takes.
    if sweep.waiting():
        with suppress(OSError):
            fork = Fork(server.address, DVC, publish.__name__, arguments, Path.cwd(), os.environ, (1, 2))
            if fork.wait() != -signal.SIGKILL:
                return
    publish.main(*arguments)


def _restore_lost(report: Report, sweep: Sweep) -> None:
    """Restore the runs of known trials that the repository's own MLflow store lacks."""
    repository, folder = sweep.command.repository, sweep.folder
    if not is_local(sweep.command.composed.tracking, repository):
        return
    known = [trial for trial in report.trials if trial.state == "known"]
    lost = [
        trial for trial in known if not find_run(repository, {ID_TAG: trial.run_id or ""}, with_model=True)
    ]
    if lost:
        say(f"MLflow lacks runs or models of {count(len(lost), 'known trial')}: restoring from DVC's cache.")
        package = folder.code.root / "src" / "pipeline"
        composed = compose_each(folder.conf, [trial.overrides for trial in lost], package)
        restore([each.trial for each in composed], repository, folder.code)


def plan_of(report: Report, workers: int) -> str:
    """Describe how many trials will run, `workers` at a time, and how many are known or pruned."""
    states = [trial.state for trial in report.trials]
    known, pruned = states.count("known"), states.count("pruned")
    left = len(states) - known - pruned
    before = f"{known} known, {pruned} pruned" if pruned else f"{known} known"
    text = f"{count(len(states), 'trial')}: {before}, {left} to run"
    return (
        f"{text}, {min(workers, left)} at a time (hydra/launcher={report.launcher})." if left else f"{text}."
    )
