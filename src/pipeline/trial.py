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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from pipeline.config import Config, dump
from pipeline.errors import PipelineError, sentences
from pipeline.stages.__main__ import die_with_parent
from pipeline.training.history import Epoch, read_history
from pipeline.workspace import Workspace, remove, write_text


@dataclass(frozen=True)
class Outcome:
    """What a trial came to: its run, the epoch whose weights were kept, and metrics.json."""

    run: str
    weights_sha256: str
    kept: Epoch
    metrics: dict[str, Any]


def reproduce(config: Config, repository: Workspace) -> Outcome:
    """Run the stages with `config` and leave the repository's own workspace alone.

    Raises:
        PipelineError: a stage failed; it has said why.
    """
    params = dump(config)
    folder = repository.scratch / "trials"
    folder.mkdir(parents=True, exist_ok=True)
    _clear_the_dead(folder)
    trial = Workspace(folder / hashlib.sha256(params.encode()).hexdigest()[:16])
    with FileLock(trial.root.with_suffix(".lock")):
        try:
            _lay_out(trial, params, repository)
            environment = {name: value for name, value in os.environ.items() if name != "DVC_SITE_CACHE_DIR"}
            environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
            environment["PYTHONPATH"] = "src"
            command = [sys.executable, "-m", "pipeline.trial", str(repository.root)]
            if _end_of(command, trial.root, environment):
                raise PipelineError(f"{config.name} (seed {config.seed}) failed; the stage said why above.")
            _show(config, trial)
            run = json.loads(trial.run.read_text(encoding="utf-8"))
            return Outcome(
                run["name"],
                run["result"]["weights_sha256"],
                read_history(trial.history).kept,
                json.loads(trial.metrics.read_text(encoding="utf-8")),
            )
        finally:
            remove(trial.root)


def _lay_out(trial: Workspace, params: str, repository: Workspace) -> None:
    """Copy what the stages read: the code as it is now, the pipeline without compose, the values."""
    remove(trial.root)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(repository.root / "src" / "pipeline", trial.root / "src" / "pipeline", ignore=ignore)
    pipeline = yaml.safe_load(repository.dvc_yaml.read_text(encoding="utf-8"))
    del pipeline["stages"]["compose"]
    write_text(trial.dvc_yaml, yaml.safe_dump(pipeline, sort_keys=False))
    write_text(trial.params, params)


def _end_of(command: list[str], place: Path, environment: dict[str, str]) -> int:
    """Run a command and give its exit code; whatever ends the wait for it ends its processes first."""
    with subprocess.Popen(command, cwd=place, env=environment, process_group=0) as process:
        try:
            return process.wait()
        except BaseException:
            # What Ctrl-C does to `dvc repro`: the stage marks its run, then DVC ends.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            process.wait()
            raise


def _show(config: Config, trial: Workspace) -> None:
    """Have MLflow hold the trial's run, also if DVC restored it; otherwise the run is kept for later."""
    from pipeline import tracking

    try:
        for line in tracking.sync(config.tracking, trial):
            print(line)
    except PipelineError as error:
        print(f"warning: {error}", file=sys.stderr)


def _clear_the_dead(folder: Path) -> None:
    """Remove what killed trials left: folders whose lock nobody holds."""
    for path in folder.iterdir():
        if path.is_dir():
            try:
                with FileLock(path.with_suffix(".lock"), timeout=0):
                    remove(path)
            except Timeout:
                continue


def _dvc(repository: Path) -> None:
    """Reproduce the trial in the current directory; a process of its own, since DVC keeps global state."""
    from dvc.cli import main as dvc
    from dvc.config import Config as DvcConfig

    settings = DvcConfig(str(repository / ".dvc"))
    cache = settings.get("cache", {}).get("dir") or repository / ".dvc" / "cache"
    here = Path.cwd()
    write_text(
        here / ".dvc" / "config",
        "[core]\n"
        "    no_scm = true\n"
        "    analytics = false\n"
        "    check_update = false\n"
        f"    site_cache_dir = {here / '.dvc' / 'site'}\n"
        f"[cache]\n    dir = {cache}\n    type = copy\n",
    )
    # Trials that start together would all fetch and preprocess the same.
    with FileLock(Workspace(repository).scratch / "upstream.lock"):
        code = dvc(["repro", "--quiet", "preprocess"])
    sys.exit(code or dvc(["repro"]))


if __name__ == "__main__":
    with sentences():
        die_with_parent()
        _dvc(Path(sys.argv[1]))
