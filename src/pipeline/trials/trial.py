"""Run a trial: the pipeline with other values, in a temporary workspace that shares DVC's cache.

If a model was trained with these values before, by `dvc repro` or by a trial, it is restored.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from filelock import Timeout

from pipeline.artifacts.workspace import SHOWN, Workspace, copy_file, files_in, object_in, remove, write_text
from pipeline.config.params import dump, read_params
from pipeline.config.schema import Config
from pipeline.console import say, warn
from pipeline.environment import prepare_environment
from pipeline.errors import PipelineError, exit_on_error
from pipeline.processes.context import TrialContext
from pipeline.processes.fork_server import Fork
from pipeline.processes.lock import locked
from pipeline.processes.system import variables_for_dvc
from pipeline.processes.temporary import own_temporary_folder
from pipeline.trials.layout import lay_out, origin_of, snapshot
from pipeline.trials.outcome import key_of
from pipeline.trials.preload import DVC
from pipeline.trials.repro import repro
from pipeline.trials.run_cache import RunCache

_SECONDS_BETWEEN_CHECKS = 0.2
_RUNNING = ".running"  # suffix of the lock that the process that runs a trial's stages holds


class StoppedError(Exception):
    """The trial was stopped on request."""


class FailedError(PipelineError):
    """A process of the trial failed; its output says why."""

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
    """Run the stages with `config` in a workspace that is removed after the `with`.

    The cache and the runs of `repository` are shared; its own workspace is not changed. The code is that of a
    `snapshot`, or by default of the repository as it is now; the process is forked by the fork server at the
    address `server`, or else started; its output goes to `log`, or else to that of this process. The trial is
    stopped when `stops`, which is called repeatedly, returns True.

    Raises:
        FailedError: If a stage failed; its output says why.
        StoppedError: If `stops` returned True.
    """
    with trial_workspace(config, repository) as trial:
        if code is None:
            snapshot(repository, trial.root, config)
        else:
            lay_out(trial, code, config, repository)
        variables = {name: value for name, value in os.environ.items() if name != "DVC_SITE_CACHE_DIR"}
        variables |= variables_for_dvc() | {"PYTHONPATH": "src"}
        context = replace(context or TrialContext(), origin=str(origin_of(code or trial)))
        variables |= context.as_environment()
        with _started(trial, repository, server, variables, log) as process:
            if exit_code := _wait(process, stops):
                raise FailedError(config, exit_code)
        yield trial


@contextmanager
def trial_workspace(config: Config, repository: Workspace) -> Iterator[Workspace]:
    """Lock the folder for a trial with `config`, and remove the folder after the `with`."""
    folder = repository.scratch / "trials"
    remove_abandoned(folder)
    trial = Workspace(folder / key_of(config))
    waiting = "Waiting for another process that is running a trial with the same values."
    with locked(trial.root.with_suffix(".lock"), waiting=waiting):
        # A child of a process that was killed may still be running.
        with locked(trial.root.with_suffix(_RUNNING), waiting=waiting):
            remove(trial.root)
        try:
            yield trial
        finally:
            remove(trial.root)


def remove_abandoned(folder: Path) -> None:
    """Remove what killed trials left in `folder`: those whose locks no process holds."""
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
    """Start the process of a trial, in its own process group."""
    if server and log:
        output = (log.fileno(), log.fileno())
        return Fork(server, DVC, __name__, [str(repository.root)], trial.root, environment, output)
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.trials", str(repository.root)],
        cwd=trial.root,
        env=environment,
        stdout=log,
        stderr=None if log is None else subprocess.STDOUT,
        process_group=0,
    )


def _wait(process: "Fork | subprocess.Popen[bytes]", stops: Callable[[], bool]) -> int:
    """Wait for a process and return its exit code; if the wait is interrupted, end its process group."""
    try:
        while not stops():
            with suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=_SECONDS_BETWEEN_CHECKS)
        raise StoppedError  # noqa: TRY301 (handled below like an exception from outside)
    except BaseException:
        # Like Ctrl-C during `dvc repro`: the stage sets the status of its run, then DVC ends.
        with suppress(ProcessLookupError, ConnectionError):
            os.killpg(process.pid, signal.SIGINT)
        process.wait()
        raise


def main(repository: str) -> int:
    """Reproduce the trial in the current directory, and send its run to MLflow, even if DVC restored it.

    This runs in its own process, because DVC has global state.
    """
    trial = Workspace(Path.cwd())
    with exit_on_error(), locked(trial.root.with_suffix(_RUNNING)), own_temporary_folder():
        prepare_environment(trial.scratch / "home")
        config = read_params(trial.params)
        code = _reproduce(config, trial, Workspace(Path(repository)).scratch / "locks")
        if not code:
            show(config, trial)
        return code


def _reproduce(config: Config, trial: Workspace, locks: Path) -> int:
    """Run the trial's stages and return the exit code of `dvc repro`."""
    # The worker may still be importing Keras, which the stages before the training don't need.
    context = TrialContext.current()
    os.environ |= replace(context, worker="").as_environment()
    with ExitStack() as held:
        for stage, inputs in RunCache(trial).find(config).missing.items():
            # Without a lock, trials that start together would all run the stages that they share.
            waiting = f"Waiting for another trial that is running the stage {stage} with the same values."
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
    """Send the trial's run to MLflow; if that fails, the run is kept for later."""
    from pipeline.tracking import session as tracking

    try:
        say(*tracking.sync(config.tracking, trial))
    except PipelineError as error:
        warn(str(error))


def restore(configs: Iterable[Config], repository: Workspace, code: Workspace) -> None:
    """Send the runs of trials that were trained before to MLflow again.

    `code` is a snapshot of the code that they ran with.
    """
    cache = RunCache(code)
    for config in configs:
        with trial_workspace(config, repository) as trial:
            write_text(trial.params, dump(config))
            for path, cached in cache.find(config).outputs.items():
                if path.startswith(SHOWN):
                    _check_out(cached, trial.root / path)
            show(config, trial)


def _check_out(cached: Path, target: Path) -> None:
    """Copy a file or a folder from DVC's cache."""
    if cached.suffix != ".dir":
        copy_file(cached, target)
    cache = cached.parents[3]
    for path, md5 in files_in(cache, cached.parent.name + cached.name).items():
        copy_file(object_in(cache, md5), target / path)
