"""A trial: the pipeline with other values, in a throwaway workspace that shares the repository's DVC cache.

What was ever trained with these values, by `dvc repro` or by a trial, is restored, not trained again.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from filelock import Timeout

from pipeline.artifacts.workspace import Workspace, remove
from pipeline.config.params import read_params
from pipeline.config.schema import Config
from pipeline.console import say, warn
from pipeline.environment import prepare_environment
from pipeline.errors import PipelineError, exit_on_error
from pipeline.processes.context import TrialContext
from pipeline.processes.fork_server import Fork
from pipeline.processes.lock import locked
from pipeline.processes.system import die_with_parent
from pipeline.processes.temporary import temporary_files_apart
from pipeline.trials.layout import lay_out, origin_of, snapshot
from pipeline.trials.outcome import key_of
from pipeline.trials.preload import DVC
from pipeline.trials.repro import repro
from pipeline.trials.run_cache import RunCache

_SECONDS_BETWEEN_QUESTIONS = 0.2
_RUNNING = ".running"  # beside a trial's folder: the lock of the process that runs its stages


class StoppedError(Exception):
    """The trial was asked to end."""


class FailedError(PipelineError):
    """A process of the trial failed; what it printed says why."""

    def __init__(self, config: Config, code: int) -> None:
        self.signal = signal.Signals(-code).name if code < 0 else ""
        why = f"its process was ended by {self.signal}" if self.signal else "the reason is above"
        super().__init__(f"{config.name} (seed {config.seed}) failed: {why}.")


@contextmanager
def run_trial(
    config: Config,
    repository: Workspace,
    code: Workspace | None = None,
    server: str | None = None,
    context: TrialContext | None = None,
    log: TextIO | None = None,
    stops: Callable[[], bool] = lambda: False,
) -> Iterator[Workspace]:
    """Run the stages with `config` in a workspace that is gone after the `with`.

    Args:
        config: of the trial.
        repository: whose cache and runs are shared, and whose own workspace is left alone.
        code: a `snapshot` to take the code from; None: the repository's as it is now.
        server: the address of a fork server to have the process from; None: it is started anew.
        context: what the stages know of it; None: it is no sweep's.
        log: where the stages write to; None: this process's own output.
        stops: asked now and then whether to end.

    Raises:
        FailedError: a stage failed; it has said why.
        StoppedError: `stops` said so.
    """
    with trial_workspace(config, repository) as trial:
        if code is None:
            snapshot(repository, trial.root, config)
        else:
            lay_out(trial, code, config, repository)
        variables = {name: value for name, value in os.environ.items() if name != "DVC_SITE_CACHE_DIR"}
        variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables.get('PATH', '')}"
        variables["PYTHONPATH"] = "src"
        context = replace(context or TrialContext(), origin=str(origin_of(code or trial)))
        variables |= context.as_environment()
        with _started(trial, repository, server, variables, log) as process:
            if exit_code := _wait(process, stops):
                raise FailedError(config, exit_code)
        yield trial


@contextmanager
def trial_workspace(config: Config, repository: Workspace) -> Iterator[Workspace]:
    """The folder for a trial with `config`, which no other process uses; it is gone after the `with`."""
    folder = repository.scratch / "trials"
    remove_abandoned(folder)
    trial = Workspace(folder / key_of(config))
    waiting = "Waiting for another process that runs a trial with the same values."
    with locked(trial.root.with_suffix(".lock"), waiting=waiting):
        # What a killed process started may be on its last steps.
        with locked(trial.root.with_suffix(_RUNNING), waiting=waiting):
            remove(trial.root)
        try:
            yield trial
        finally:
            remove(trial.root)


def remove_abandoned(folder: Path) -> None:
    """Remove what killed trials left in `folder`: no process holds their locks."""
    for key in {path.with_suffix("") for path in folder.glob("*")}:
        with (
            suppress(Timeout),
            locked(key.with_suffix(".lock"), timeout=0),
            locked(key.with_suffix(_RUNNING), timeout=0),
        ):
            remove(key)


def _started(
    trial: Workspace,
    repository: Workspace,
    server: str | None,
    environment: dict[str, str],
    log: TextIO | None,
) -> "Fork | subprocess.Popen[bytes]":
    """The process of a trial, in a process group of its own."""
    if server and log:
        output = (log.fileno(), log.fileno())
        return Fork(server, DVC, __name__, [str(repository.root)], trial.root, environment, output)
    return subprocess.Popen(
        [sys.executable, "-m", __name__, str(repository.root)],
        cwd=trial.root,
        env=environment,
        stdout=log,
        stderr=None if log is None else subprocess.STDOUT,
        process_group=0,
    )


def _wait(process: "Fork | subprocess.Popen[bytes]", stops: Callable[[], bool]) -> int:
    """The exit code of a process; if the wait for it is cut short, its group ends first."""
    try:
        while not stops():
            with suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=_SECONDS_BETWEEN_QUESTIONS)
        raise StoppedError  # noqa: TRY301 (it ends as an exception from outside does)
    except BaseException:
        # What Ctrl-C does to `dvc repro`: the stage marks its run, then DVC ends.
        with suppress(ProcessLookupError, ConnectionError):
            os.killpg(process.pid, signal.SIGINT)
        process.wait()
        raise


def main(repository: str) -> int:
    """Reproduce the trial in the current directory, and have MLflow hold its run, also if DVC restored it.

    Of a process of its own, since DVC keeps global state.
    """
    trial = Workspace(Path.cwd())
    with exit_on_error(), locked(trial.root.with_suffix(_RUNNING)), temporary_files_apart():
        prepare_environment(trial.scratch / "home")
        config = read_params(trial.params)
        code = _reproduce(config, trial, Workspace(Path(repository)).scratch / "locks")
        if not code:
            show(config, trial)
        return code


def _reproduce(config: Config, trial: Workspace, locks: Path) -> int:
    """The exit code of `dvc repro`."""
    # The worker may still be importing Keras, which the stages before the training do without.
    context = TrialContext.current()
    os.environ |= replace(context, worker="").as_environment()
    with ExitStack() as held:
        for stage, inputs in RunCache(trial).find(config).missing.items():
            # Trials that start together would all do what they have in common.
            waiting = f"Waiting for another trial that runs the stage {stage} with the same values."
            lock = locked(locks / f"{stage}-{inputs}.lock", waiting=waiting)
            if stage in ("fetch", "preprocess"):
                with lock:
                    if code := repro("--quiet", stage):
                        return code
            elif stage == "train":
                held.enter_context(lock)
        os.environ |= context.as_environment()
        return repro()


def show(config: Config, trial: Workspace) -> None:
    """Have MLflow hold the trial's run; otherwise the run is kept for later."""
    from pipeline.tracking import session as tracking

    try:
        for line in tracking.sync(config.tracking, trial):
            say(line)
    except PipelineError as error:
        warn(str(error))


if __name__ == "__main__":
    die_with_parent()
    # A shell has what a script starts with `&` ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(sys.argv[1]))
