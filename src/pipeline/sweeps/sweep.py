"""What a grid and a search have in common: a folder, a launch, a report."""

import hashlib
import os
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from pipeline.artifacts.workspace import Workspace, remove, sha256
from pipeline.config.compose import compose_each, compose_sweep
from pipeline.config.schema import Composed, Config, TrackingSection
from pipeline.console import say
from pipeline.errors import PipelineError
from pipeline.processes.fork_server import Fork, ForkServer
from pipeline.results import leaderboard, publish
from pipeline.results.live import watching
from pipeline.results.report import Report, Status, TrialReport
from pipeline.sweeps.folder import Folder, Progress
from pipeline.sweeps.job import Job
from pipeline.sweeps.launch import launch, stopping, workers
from pipeline.sweeps.plan import parse
from pipeline.tracking.run import ID_TAG
from pipeline.tracking.store import find_run, is_local
from pipeline.trials.preload import DVC, start_fork_server
from pipeline.trials.trial import Outcome, clear_the_dead, key_of, reproduced, snapshot

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from hydra.types import HydraContext
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Sweep(ABC):
    """The trials of a command, whoever chooses them."""

    repository: Workspace
    folder: Folder
    server: ForkServer
    head: Report  # all but its trials

    @property
    @abstractmethod
    def jobs(self) -> dict[str, tuple[str, ...]]:
        """The overrides of what a launcher has yet to run, by the name under which it notes its progress."""

    @abstractmethod
    def look(self) -> Report:
        """How the trials stand now."""


def stands(plain: TrialReport, progress: Progress) -> TrialReport:
    """`plain`, which says nothing of how the trial stands, with what its progress says."""
    seconds = time.time() - progress.start if progress.seconds is None else progress.seconds
    return replace(
        plain, state=progress.state, error=progress.error, seconds=seconds, **told(progress.outcome)
    )


def told(outcome: Outcome | None) -> dict[str, Any]:
    """What a report says of an outcome."""
    return {"run_id": outcome.id, "run": outcome.run, "values": outcome.values} if outcome else {}


def composed_and_overrides(
    conf: Path, arguments: Sequence[str], hydra_context: "HydraContext"
) -> tuple[Composed, list["Override"]]:
    """What `arguments` compose to without the keys that are swept over, and all overrides with those."""
    loader = hydra_context.config_loader
    typed = [part.input_line or "" for part in parse(arguments, {}, loader) if not part.is_sweep_override()]
    composed = compose_sweep(conf, typed)
    return composed, parse(arguments, composed.sweep.params, loader)


def space_text(overrides: Sequence["Override"]) -> dict[str, Any]:
    """The values by the keys that are swept over, or the text of what has none to list."""
    return {
        part.get_key_element(): list(part.sweep_string_iterator())
        if part.is_discrete_sweep()
        else str(part.input_line).partition("=")[2]
        for part in overrides
        if part.is_sweep_override()
    }


def head_of(
    folder: Folder,
    composed: Composed,
    config: "DictConfig",
    arguments: Sequence[str],
    sweeper: str,
    space: Mapping[str, Any],
) -> Report:
    """The report of a sweep that starts now, without its trials."""
    of_hydra = [text for text in config.hydra.overrides.hydra if not text.startswith("hydra.mode=")]
    return Report(
        id=folder.root.name,
        name=f"sweep-{composed.name}-{folder.root.name[:4]}",
        command=(*of_hydra, *arguments),
        sweeper=sweeper,
        launcher=config.hydra.runtime.choices["hydra/launcher"],
        objectives=composed.sweep.objectives,
        space=space,
        tracking=composed.tracking.model_dump(mode="json"),
        start=int(time.time() * 1000),
    )


def run(own: Sweep, job: Job, hydra_context: "HydraContext", config: "DictConfig") -> int:
    """Run what is unknown and report; the exit code of the sweep."""
    for name in own.jobs:
        own.folder.forget(name)
    start = own.look()
    start.write(own.folder.root)
    say(_plan(start, workers(config)))
    came: list[int] = []
    if own.jobs:
        # Beside the first trials, which get to MLflow later than this.
        beginning = threading.Thread(target=_publish, args=(own,), daemon=True)
        beginning.start()
        with watching(own.look, workers(config)), stopping(own.folder) as came:
            launch(own, job, hydra_context, config)
        beginning.join()
    report = own.look()
    failed = [trial for trial in report.trials if trial.state == "failed"]
    whole = all(trial.state in ("known", "done", "pruned") for trial in report.trials)
    status: Status = "KILLED" if came else "FINISHED" if whole else "FAILED"
    report = replace(report, status=status, end=int(time.time() * 1000))
    report.write(own.folder.root)
    for config_of_lost in _lost(report, own):
        # It brings its run to MLflow.
        with reproduced(config_of_lost, own.repository, own.folder.code):
            pass
    board = leaderboard.rank(report)
    leaderboard.show(board)
    _publish(own)
    for line in leaderboard.next_steps(board):
        say(line)
    for ended in failed:
        print(f"error: {leaderboard.label_of(ended.differs)}: {ended.error}", file=sys.stderr)
    if came:
        say("Stopped; the same command again goes on.")
        return 128 + came[0]
    return 0 if whole else 1


def _publish(own: Sweep) -> None:
    """Have MLflow show the sweep as its report has it."""
    arguments = [str(own.folder.root), str(own.repository.root)]
    # What is all known is published before the server has imported what that takes.
    if own.jobs:
        with suppress(OSError):
            fork = Fork(own.server.address, DVC, publish.__name__, arguments, Path.cwd(), os.environ, (1, 2))
            if fork.wait() != -signal.SIGKILL:
                return
    publish.main(*arguments)


def _lost(report: Report, own: Sweep) -> Iterator[Config]:
    """Of the known trials those whose runs the repository's own MLflow store does not have."""
    if not is_local(TrackingSection(**report.tracking), own.repository):
        return
    known = [trial for trial in report.trials if trial.state == "known"]
    lost = [trial for trial in known if not find_run(own.repository, {ID_TAG: trial.run_id or ""})]
    composed = compose_each(own.repository.root / "conf", [trial.overrides for trial in lost])
    for trial, found in zip(lost, composed, strict=True):
        # Not if conf/ was edited since.
        if key_of(found.trial) == trial.key:
            yield found.trial


@contextmanager
def opened(
    identity: Sequence[str], config: Config, repository: Workspace
) -> Iterator[tuple[Folder, ForkServer]]:
    """The folder of a sweep, a snapshot of the code as it is now inside, and a server that imports that.

    Args:
        identity: what tells it from other sweeps, beside the code.
        config: of any of its trials.
        repository: whose .pipeline/ has the folder.

    Raises:
        PipelineError: the same sweep is under way.
    """
    (repository.scratch / "trials").mkdir(parents=True, exist_ok=True)
    repository.sweeps.mkdir(parents=True, exist_ok=True)
    clear_the_dead(repository.scratch / "trials")
    for left_over in repository.sweeps.glob("*/code"):
        with suppress(Timeout), FileLock(left_over.parent.with_suffix(".lock"), timeout=0):
            remove(left_over)
    digest = hashlib.sha256("".join(identity).encode())
    for path in sorted((repository.root / "src" / "pipeline").rglob("*.py")):
        digest.update(sha256(path).encode())
    folder = Folder(repository.sweeps / digest.hexdigest()[:16])
    try:
        with FileLock(folder.root.with_suffix(".lock"), timeout=0):
            remove(folder.stop)
            snapshot(repository, folder.code.root, config)
            with start_fork_server(folder.code) as server:
                yield folder, server
            remove(folder.code.root)
    except Timeout:
        raise PipelineError("The same sweep is under way in another process: wait for its end.") from None


def _plan(report: Report, at_a_time: int) -> str:
    total, known = len(report.trials), sum(trial.state == "known" for trial in report.trials)
    text = f"{total} trials: {known} known, {total - known} to run"
    if total == known:
        return f"{text}."
    return f"{text}, {min(at_a_time, total - known)} at a time (hydra/launcher={report.launcher})."
