"""A trial: the pipeline with other values, in a throwaway workspace that shares the repository's DVC cache.

What was ever trained with these values, by `dvc repro` or by a trial, is restored, not trained again.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import yaml
from filelock import FileLock, Timeout

from pipeline.artifacts.history import Epoch, read_history
from pipeline.artifacts.workspace import Workspace, remove, write_text
from pipeline.config.params import dump, read_params
from pipeline.config.schema import OBJECTIVES_BY_EPOCH, Config
from pipeline.console import say
from pipeline.errors import PipelineError, sentences
from pipeline.processes.context import TrialContext
from pipeline.processes.fork_server import Fork
from pipeline.processes.system import die_with_parent
from pipeline.trials.preload import DVC
from pipeline.trials.repro import repro
from pipeline.trials.run_cache import Known, RunCache

_SECONDS_BETWEEN_LOOKS = 0.2


class StoppedError(Exception):
    """The trial was told to end."""


@dataclass(frozen=True)
class Outcome:
    """What a trial came to: its run, and its best epoch; nothing of the test images."""

    id: str
    run: str
    weights_sha256: str
    parameters: int
    epochs: int
    best: Epoch

    @property
    def values(self) -> dict[str, float]:
        """What a sweep may aim at, by the objectives' names."""
        known = {name: getattr(self.best, name) for name in OBJECTIVES_BY_EPOCH}
        found = {name: value for name, value in known.items() if value is not None}
        return {**found, "parameters": self.parameters}

    @classmethod
    def of(cls, noted: dict[str, Any]) -> "Outcome":
        """The outcome that `asdict` made a mapping of."""
        return cls(**noted | {"best": Epoch(**noted["best"])})

    @classmethod
    def read(cls, run: Path, history: Path) -> "Outcome":
        """The outcome that models/run.json and models/history.csv tell of."""
        known = json.loads(run.read_text(encoding="utf-8"))
        result = known["result"]
        return cls(
            known["id"],
            known["name"],
            result["weights_sha256"],
            result["parameters"],
            result["epochs"],
            read_history(history).best,
        )


def outcome_of(known: Known) -> Outcome | None:
    """What DVC's cache has of a trial's training, if it was ever trained."""
    place = Workspace(Path())
    run, history = (known.outputs.get(str(path)) for path in (place.run, place.history))
    return Outcome.read(run, history) if run and history else None


def key_of(config: Config) -> str:
    """What tells the trials of one version of the code apart."""
    return hashlib.sha256(dump(config).encode()).hexdigest()[:16]


def snapshot(repository: Workspace, place: Path, config: Config) -> Workspace:
    """Copy the code as it is now, and the pipeline without compose: what trials are laid out from."""
    remove(place)
    copied = Workspace(place)
    ignore = shutil.ignore_patterns("__pycache__")
    for package in ("pipeline", "hydra_plugins"):
        source = repository.root / "src" / package
        shutil.copytree(source, place / "src" / package, ignore=ignore)
    pipeline = yaml.safe_load(repository.dvc_yaml.read_text(encoding="utf-8"))
    pipeline["stages"].pop("compose", None)
    write_text(copied.dvc_yaml, yaml.safe_dump(pipeline, sort_keys=False))
    write_text(copied.params, dump(config))
    _configure_dvc(copied, repository)
    return copied


def _configure_dvc(workspace: Workspace, repository: Workspace) -> None:
    """Have DVC take `workspace` for a repository of its own with the cache of `repository`."""
    write_text(
        workspace.root / ".dvc" / "config",
        "[core]\n"
        "    no_scm = true\n"
        "    analytics = false\n"
        "    check_update = false\n"
        f"    site_cache_dir = {workspace.root / '.dvc' / 'site'}\n"
        f"[cache]\n    dir = {repository.dvc_cache()}\n    type = copy\n",
    )


@contextmanager
def reproduced(
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
        PipelineError: a stage failed; it has said why.
        StoppedError: `stops` said so.
    """
    folder = repository.scratch / "trials"
    folder.mkdir(parents=True, exist_ok=True)
    clear_the_dead(folder)
    trial = Workspace(folder / key_of(config))
    with FileLock(trial.root.with_suffix(".lock")):
        try:
            if code is None:
                snapshot(repository, trial.root, config)
            else:
                remove(trial.root)
                shutil.copytree(code.root / "src", trial.root / "src")
                shutil.copy(code.dvc_yaml, trial.dvc_yaml)
                write_text(trial.params, dump(config))
                _configure_dvc(trial, repository)
            variables = {name: value for name, value in os.environ.items() if name != "DVC_SITE_CACHE_DIR"}
            variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables.get('PATH', '')}"
            variables["PYTHONPATH"] = "src"
            variables |= (context or TrialContext()).as_environment()
            with _started(trial, repository, server, variables, log) as process:
                if _end_of(process, stops):
                    raise PipelineError(
                        f"{config.name} (seed {config.seed}) failed; the stage said why above."
                    )
            yield trial
        finally:
            remove(trial.root)


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


def _end_of(process: "Fork | subprocess.Popen[bytes]", stops: Callable[[], bool]) -> int:
    """The exit code of a process; whatever ends the wait for it ends its group first."""
    try:
        while not stops():
            with suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=_SECONDS_BETWEEN_LOOKS)
        raise StoppedError  # noqa: TRY301 (it ends as an exception from outside does)
    except BaseException:
        # What Ctrl-C does to `dvc repro`: the stage marks its run, then DVC ends.
        with suppress(ProcessLookupError, ConnectionError):
            os.killpg(process.pid, signal.SIGINT)
        process.wait()
        raise


def clear_the_dead(folder: Path) -> None:
    """Remove what killed trials left: folders whose lock nobody holds."""
    for path in folder.iterdir():
        if path.is_dir():
            try:
                with FileLock(path.with_suffix(".lock"), timeout=0):
                    remove(path)
            except Timeout:
                continue


def main(repository: str) -> int:
    """Reproduce the trial in the current directory, and have MLflow hold its run, also if DVC restored it.

    Of a process of its own, since DVC keeps global state.
    """
    with sentences():
        trial = Workspace(Path.cwd())
        config = read_params(trial.params)
        code = _reproduce(config, trial, Workspace(Path(repository)).scratch / "locks")
        if not code:
            _show(config, trial)
        return code


def _reproduce(config: Config, trial: Workspace, locks: Path) -> int:
    """The exit code of `dvc repro`."""
    locks.mkdir(parents=True, exist_ok=True)
    # The worker may still be importing Keras, which the stages before the training do without.
    context = TrialContext.current()
    os.environ |= replace(context, worker="").as_environment()
    with ExitStack() as held:
        for stage, inputs in RunCache(trial).find(config).missing.items():
            # Trials that start together would all do what they have in common.
            lock = FileLock(locks / f"{stage}-{inputs}.lock")
            if stage in ("fetch", "preprocess"):
                with lock:
                    if code := repro("--quiet", stage):
                        return code
            elif stage == "train":
                held.enter_context(lock)
        os.environ |= context.as_environment()
        return repro()


def _show(config: Config, trial: Workspace) -> None:
    """Have MLflow hold the trial's run; otherwise the run is kept for later."""
    from pipeline.tracking import session as tracking

    try:
        for line in tracking.sync(config.tracking, trial):
            say(line)
    except PipelineError as error:
        print(f"warning: {error}", file=sys.stderr)


if __name__ == "__main__":
    die_with_parent()
    # A shell has what a script starts with `&` ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(sys.argv[1]))
