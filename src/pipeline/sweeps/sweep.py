"""A sweep: plan, launch, watch, report."""

import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from pipeline.config import TrackingSection, compose_each, dump
from pipeline.console import say
from pipeline.errors import PipelineError, sentences
from pipeline.sweeps import leaderboard
from pipeline.sweeps.board import watching
from pipeline.sweeps.job import NOW, Folder, Job
from pipeline.sweeps.known import RunCache
from pipeline.sweeps.plan import Trial, grid, parse
from pipeline.sweeps.publish import publish
from pipeline.sweeps.report import Report, Status, TrialReport
from pipeline.sweeps.trial import Outcome, clear_the_dead, reproduced, show, snapshot
from pipeline.tracking.projection import ID_TAG
from pipeline.tracking.store import find_run, is_local
from pipeline.workspace import Workspace, here, remove, sha256, write_text

if TYPE_CHECKING:
    from hydra.types import HydraContext
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Sweep:
    """The trials of a command, and what is known of each."""

    repository: Workspace
    folder: Folder
    head: Report  # all but its trials
    trials: Sequence[Trial]
    known: dict[str, Outcome]  # by the trials' keys, before the start

    @property
    def unknown(self) -> list[Trial]:
        """The trials that some stage has yet to run for."""
        return [trial for trial in self.trials if trial.key not in self.known]

    def look(self) -> Report:
        """How the trials stand now."""
        return replace(self.head, trials=tuple(map(self._stands, self.trials)))

    def _stands(self, trial: Trial) -> TrialReport:
        plain = TrialReport(trial.number, trial.key, trial.overrides, trial.differs)
        if outcome := self.known.get(trial.key):
            return replace(plain, state="known", **_told(outcome))
        progress = self.folder.progress(trial.key)
        if not progress:
            return plain
        seconds = time.time() - progress.start if progress.seconds is None else progress.seconds
        return replace(
            plain, state=progress.state, error=progress.error, seconds=seconds, **_told(progress.outcome)
        )


def _told(outcome: Outcome | None) -> dict[str, Any]:
    return {"run_id": outcome.id, "run": outcome.run, "values": outcome.values} if outcome else {}


def sweep(arguments: Sequence[str], hydra_context: "HydraContext", config: "DictConfig") -> None:
    """Run every combination of the values in `arguments`; the process ends with an exit code that tells.

    Args:
        arguments: the overrides of the command line.
        hydra_context: how Hydra composes.
        config: what Hydra composed for the sweep as a whole.
    """
    with sentences():
        start, repository = time.time(), here()
        conf = repository.root / "conf"
        typed = [part.input_line or "" for part in parse(arguments, {}) if not part.is_sweep_override()]
        composed = next(compose_each(conf, [typed]))
        overrides = parse(arguments, composed.sweep.params)
        trials = grid(conf, overrides)
        with _opened(trials, repository) as folder:
            head = Report(
                id=folder.root.name,
                name=f"sweep-{composed.name}-{folder.root.name[:4]}",
                command=tuple(arguments),
                sweeper="grid",
                launcher=config.hydra.runtime.choices["hydra/launcher"],
                objectives=composed.sweep.objectives,
                space={
                    part.get_key_element(): list(part.sweep_string_iterator())
                    for part in overrides
                    if part.is_sweep_override()
                },
                tracking=composed.tracking.model_dump(mode="json"),
                start=int(start * 1000),
            )
            own = Sweep(repository, folder, head, trials, _look_up(trials, folder))
            say(_plan(own, workers(config)))
            stop_at_failure = composed.sweep.on_failure == "stop"
            job = Job(repository.root, folder.root, (), os.getpid(), stop_at_failure)
            sys.exit(_run(own, job, hydra_context, config))


def _run(own: Sweep, job: Job, hydra_context: "HydraContext", config: "DictConfig") -> int:
    """Run what is unknown and report; the exit code of the sweep."""
    for trial in own.unknown:
        own.folder.forget(trial.key)
        write_text(own.folder.params(trial.key), dump(trial.config))
    own.look().write(own.folder.root)
    came: list[int] = []
    if own.unknown:
        # Beside the first trials, which get to MLflow later than this.
        beginning = threading.Thread(target=_publish, args=(own.look(), own), daemon=True)
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
    for trial in _lost(own):
        with reproduced(trial.config, own.repository, own.folder.code) as restored:
            show(trial.config, restored)
    leaderboard.show(report)
    _publish(report, own)
    for ended in failed:
        print(f"error: {leaderboard.label_of(ended.differs)}: {ended.error}", file=sys.stderr)
    if came:
        say("Stopped; the same command again goes on.")
        return 128 + came[0]
    return 0 if whole else 1


def _publish(report: Report, own: Sweep) -> None:
    """Have MLflow show the sweep as it stands; if that fails it is kept for later."""
    try:
        if line := publish(report, own.folder.root, own.repository):
            say(line)
    except PipelineError as error:
        print(f"warning: {error}", file=sys.stderr)


def _lost(own: Sweep) -> list[Trial]:
    """The known trials whose runs the repository's own MLflow store does not have."""
    tracking = TrackingSection(**own.head.tracking)
    if not is_local(tracking, own.repository):
        return []
    return [
        trial
        for trial in own.trials
        if trial.key in own.known and not find_run(own.repository, {ID_TAG: own.known[trial.key].id})
    ]


@contextmanager
def _opened(trials: Sequence[Trial], repository: Workspace) -> Iterator[Folder]:
    """The folder of the sweep of these trials with the code as it is now, a snapshot of it inside.

    Raises:
        PipelineError: the same sweep is under way.
    """
    (repository.scratch / "trials").mkdir(parents=True, exist_ok=True)
    repository.sweeps.mkdir(parents=True, exist_ok=True)
    clear_the_dead(repository.scratch / "trials")
    for left_over in repository.sweeps.glob("*/code"):
        with suppress(Timeout), FileLock(left_over.parent.with_suffix(".lock"), timeout=0):
            remove(left_over)
    digest = hashlib.sha256("".join(sorted(trial.key for trial in trials)).encode())
    for path in sorted((repository.root / "src" / "pipeline").rglob("*.py")):
        digest.update(sha256(path).encode())
    folder = Folder(repository.sweeps / digest.hexdigest()[:16])
    try:
        with FileLock(folder.root.with_suffix(".lock"), timeout=0):
            remove(folder.stop)
            snapshot(repository, folder.code.root, trials[0].config)
            yield folder
            remove(folder.code.root)
    except Timeout:
        raise PipelineError("The same sweep is under way in another process: wait for its end.") from None


def _look_up(trials: Sequence[Trial], folder: Folder) -> dict[str, Outcome]:
    """What is known of the trials, by their keys, without running anything."""
    cache, place = RunCache(folder.code), Workspace(Path())
    found = {trial.key: cache.find(trial.config) for trial in trials}
    return {
        key: Outcome.read(known.outputs[str(place.run)], known.outputs[str(place.history)])
        for key, known in found.items()
        if not known.missing
    }


def _plan(own: Sweep, at_a_time: int) -> str:
    text = f"{len(own.trials)} trials: {len(own.known)} known, {len(own.unknown)} to run"
    if not own.unknown:
        return f"{text}."
    return f"{text}, {min(at_a_time, len(own.unknown))} at a time (hydra/launcher={own.head.launcher})."


def workers(config: "DictConfig") -> int:
    """How many trials the launcher runs at a time."""
    jobs: int = config.hydra.launcher.get("n_jobs", 1) or 1
    return jobs if jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + jobs)


def _launch(own: Sweep, job: Job, hydra_context: "HydraContext", config: "DictConfig") -> None:
    """Have the launcher run each unknown trial; those whose process died with another's start once more."""
    from hydra.core.plugins import Plugins

    waiting, crashed = own.unknown, set[str]()
    while waiting and not own.folder.stop.exists():
        crash = ""
        job = replace(job, keys=tuple(trial.key for trial in waiting))
        launcher = Plugins.instance().instantiate_launcher(hydra_context, job, config)
        try:
            launcher.launch([list(trial.overrides) for trial in waiting], initial_job_idx=0)
        except Exception as error:
            # A process of the launcher's died, and it gave up the others.
            crash = f"{type(error).__name__}: {error}"
        for trial in waiting:
            progress = own.folder.progress(trial.key)
            if progress and progress.state == "running":
                if trial.key in crashed:
                    own.folder.note(trial.key, replace(progress, state="failed", error="its process died"))
                else:
                    own.folder.forget(trial.key)
                    crashed.add(trial.key)
        left = [trial for trial in waiting if own.folder.progress(trial.key) is None]
        if len(left) == len(waiting) and not crashed.intersection(trial.key for trial in left):
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
