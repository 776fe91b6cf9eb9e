"""A sweep: plan, launch, watch, report."""

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
from types import FrameType
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from pipeline.config import Composed, Config, TrackingSection, compose_each, dump
from pipeline.console import say
from pipeline.errors import PipelineError, sentences
from pipeline.sweeps import leaderboard, publish
from pipeline.sweeps.board import watching
from pipeline.sweeps.forks import Fork, ForkServer
from pipeline.sweeps.job import NOW, Folder, Job, Progress
from pipeline.sweeps.known import RunCache
from pipeline.sweeps.plan import Trial, grid, parse
from pipeline.sweeps.report import Report, Status, TrialReport
from pipeline.sweeps.trial import Outcome, clear_the_dead, key_of, outcome_of, reproduced, snapshot
from pipeline.tracking.projection import ID_TAG
from pipeline.tracking.store import find_run, is_local
from pipeline.workspace import Workspace, here, remove, sha256, write_text

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


@dataclass(frozen=True)
class Grid(Sweep):
    """Trials that are all known before the start."""

    trials: Sequence[Trial]
    known: dict[str, Outcome]  # by the trials' keys, before the start

    @property
    def unknown(self) -> list[Trial]:
        """The trials that some stage has yet to run for."""
        return [trial for trial in self.trials if trial.key not in self.known]

    @property
    def jobs(self) -> dict[str, tuple[str, ...]]:
        """The unknown trials."""
        return {trial.key: trial.overrides for trial in self.unknown}

    def look(self) -> Report:
        """How the trials stand now."""
        return replace(self.head, trials=tuple(map(self._stands, self.trials)))

    def _stands(self, trial: Trial) -> TrialReport:
        plain = TrialReport(trial.number, trial.key, trial.overrides, trial.differs)
        if outcome := self.known.get(trial.key):
            return replace(plain, state="known", **told(outcome))
        progress = self.folder.progress(trial.key)
        return stands(plain, progress) if progress else plain


def stands(plain: TrialReport, progress: Progress) -> TrialReport:
    """`plain`, which says nothing of how the trial stands, with what its progress says."""
    seconds = time.time() - progress.start if progress.seconds is None else progress.seconds
    return replace(
        plain, state=progress.state, error=progress.error, seconds=seconds, **told(progress.outcome)
    )


def told(outcome: Outcome | None) -> dict[str, Any]:
    """What a report says of an outcome."""
    return {"run_id": outcome.id, "run": outcome.run, "values": outcome.values} if outcome else {}


def sweep(arguments: Sequence[str], hydra_context: "HydraContext", config: "DictConfig") -> None:
    """Run every combination of the values in `arguments`; the process ends with an exit code that tells.

    Args:
        arguments: the overrides of the command line.
        hydra_context: how Hydra composes.
        config: what Hydra composed for the sweep as a whole.
    """
    with sentences():
        repository = here()
        conf = repository.root / "conf"
        composed, overrides = composed_and_overrides(conf, arguments, hydra_context)
        trials = grid(conf, overrides)
        identity = sorted(trial.key for trial in trials)
        with opened(identity, trials[0].config, repository) as (folder, server):
            head = head_of(folder, composed, config, arguments, "grid", space_text(overrides))
            own = Grid(repository, folder, server, head, trials, _look_up(trials, folder))
            for trial in own.unknown:
                write_text(folder.params(trial.key), dump(trial.config))
            differs = {trial.key: trial.differs for trial in own.unknown}
            stops = composed.sweep.on_failure == "stop"
            job = Job(repository.root, folder.root, (), os.getpid(), stops, differs, server.address)
            sys.exit(run(own, job, hydra_context, config))


def composed_and_overrides(
    conf: Path, arguments: Sequence[str], hydra_context: "HydraContext"
) -> tuple[Composed, list["Override"]]:
    """What `arguments` compose to without the keys that are swept over, and all overrides with those."""
    loader = hydra_context.config_loader
    typed = [part.input_line or "" for part in parse(arguments, {}, loader) if not part.is_sweep_override()]
    composed = next(compose_each(conf, [typed]))
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
        with watching(own.look, workers(config)), _stopping(own.folder) as came:
            _launch(own, job, hydra_context, config)
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
            fork = Fork(own.server.address, publish.__name__, arguments, Path.cwd(), os.environ, (1, 2))
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
            with ForkServer(folder.code) as server:
                yield folder, server
            remove(folder.code.root)
    except Timeout:
        raise PipelineError("The same sweep is under way in another process: wait for its end.") from None


def _look_up(trials: Sequence[Trial], folder: Folder) -> dict[str, Outcome]:
    """What is known of the trials, by their keys, without running anything."""
    cache = RunCache(folder.code)
    found = {trial.key: cache.find(trial.config) for trial in trials}
    whole = {key: outcome_of(known) for key, known in found.items() if not known.missing}
    return {key: outcome for key, outcome in whole.items() if outcome}


def _plan(report: Report, at_a_time: int) -> str:
    total, known = len(report.trials), sum(trial.state == "known" for trial in report.trials)
    text = f"{total} trials: {known} known, {total - known} to run"
    if total == known:
        return f"{text}."
    return f"{text}, {min(at_a_time, total - known)} at a time (hydra/launcher={report.launcher})."


def workers(config: "DictConfig") -> int:
    """How many trials the launcher runs at a time."""
    if config.hydra.runtime.choices["hydra/launcher"] == "ray":
        from hydra_plugins.pipeline_launchers import slots

        return slots(config.hydra.launcher)
    jobs: int = config.hydra.launcher.get("n_jobs", 1) or 1
    return jobs if jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + jobs)


def _launch(own: Sweep, job: Job, hydra_context: "HydraContext", config: "DictConfig") -> None:
    """Have the launcher run each job; those whose process died with another's start once more."""
    from hydra.core.plugins import Plugins

    waiting, crashed = own.jobs, set[str]()
    while waiting and not own.folder.stop.exists():
        crash = ""
        job = replace(job, keys=tuple(waiting))
        launcher = Plugins.instance().instantiate_launcher(hydra_context, job, config)
        try:
            launcher.launch([list(overrides) for overrides in waiting.values()], initial_job_idx=0)
        except Exception as error:
            # A process of the launcher's died, and it gave up the others.
            crash = f"{type(error).__name__}: {error}"
        for name in waiting:
            progress = own.folder.progress(name)
            if progress and progress.state == "running":
                if name in crashed:
                    own.folder.note(name, replace(progress, state="failed", error="its process died"))
                else:
                    own.folder.forget(name)
                    crashed.add(name)
        left = {name: overrides for name, overrides in waiting.items() if own.folder.progress(name) is None}
        if len(left) == len(waiting) and not crashed.intersection(left) and not own.folder.stop.exists():
            raise PipelineError(f"The launcher {own.head.launcher} ran no trial. {crash}")
        waiting = left


@contextmanager
def _stopping(folder: Folder) -> Iterator[list[int]]:
    """Have Ctrl-C and SIGTERM end the trials in an orderly way; gives the signals that came."""
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)
        write_text(folder.stop, NOW)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
