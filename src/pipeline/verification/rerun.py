"""The last resort of repair: make lost files again, by running their stage or rebuilding their run."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.artifacts.workspace import Workspace, remove, sha256
from pipeline.config.schema import TrackingSection
from pipeline.console import say
from pipeline.errors import PipelineError
from pipeline.processes.system import variables_for_dvc
from pipeline.processes.temporary import temporary_folder
from pipeline.reproduction.rebuild import rebuilt
from pipeline.reproduction.recorded import origin_in_mlflow
from pipeline.verification.cache import Cache
from pipeline.verification.problems import Problem, digests


def run_again(lost: Sequence[Problem], cache: Cache) -> list[str]:
    """Run the stages that made the lost files again, and return a line for each file.

    A stage whose inputs differ from dvc.lock would make something else, so it is not run.
    """
    lines: list[str] = []
    for stage in cache.stages():
        if of_stage := [problem for problem in lost if problem.stage == stage]:
            lines += _run(stage, of_stage, cache)
    return lines


def rebuild(
    run: str,
    lost: Sequence[Problem],
    tracking: TrackingSection,
    workspace: Workspace,
    put: Callable[[Problem, Path], None],
) -> list[str]:
    """Rebuild a run for the files that MLflow lost, and return a line for each file.

    `run` is MLflow's id; `put` sends a file to MLflow.
    """
    names = ", ".join(problem.name for problem in lost)
    try:
        with temporary_folder() as folder:
            origin = origin_in_mlflow(run, tracking, workspace, folder)
            say(f"There is no copy of {names}: {origin.label} is trained again ...")
            with rebuilt(origin, workspace) as clone:
                made = {sha256(path): path for path in results_in(clone)}
                for problem in lost:
                    if problem.digest in made:
                        put(problem, made[problem.digest])
                return [
                    f"{problem.name} of {origin.label}: trained again, "
                    f"{'the same bytes' if problem.digest in made else 'other bytes, which are not kept'}."
                    for problem in lost
                ]
    except PipelineError as error:
        return [f"{names}: no copy was found, and the run can't be trained again: {error}"]


def results_in(workspace: Workspace) -> Iterator[Path]:
    """Yield the files that MLflow shows."""
    for folder in (workspace.model.parent, workspace.metrics.parent):
        yield from (path for path in folder.rglob("*") if path.is_file())
    yield from workspace.data_report


def _run(stage: str, lost: Sequence[Problem], cache: Cache) -> Iterator[str]:
    names = list(
        dict.fromkeys(str(problem.path) if problem.area == "cache" else problem.name for problem in lost)
    )
    if changed := _changed_inputs(stage, cache):
        why = f"no copy was found, and {stage} would make a different one: {changed}"
    else:
        say(f"There is no copy of {', '.join(names)}: {stage} runs again ...")
        # Otherwise, DVC may take a damaged file for the right one, by its state when it was last hashed.
        for problem in lost:
            if problem.path:
                remove(problem.path)
        why = _repro(stage, cache) or _compare(stage, lost)
    yield from (f"{name}: {why}." for name in names)


def _changed_inputs(stage: str, cache: Cache) -> str:
    """Say which of the stage's inputs differ from dvc.lock; empty if none do."""
    from dvc.repo import Repo

    with Repo(str(cache.workspace.root)) as repo, repo.lock:
        status = repo.stage.load_one(str(cache.workspace.dvc_yaml), stage).status()
    changed = [part for parts in status.values() for part in parts]
    inputs = [part for part in changed if isinstance(part, dict) and "changed deps" in part]
    paths = [path for part in inputs for path in part["changed deps"]]
    command = ["its command in dvc.yaml"] if "changed command" in changed else []
    return f"{', '.join([*command, *paths])} changed since" if paths or command else ""


def _repro(stage: str, cache: Cache) -> str:
    """Run the stage, and return an error message; empty if it succeeded."""
    command = [sys.executable, "-m", "dvc", "repro", "--quiet", "--single-item", stage]
    environment = os.environ | variables_for_dvc()
    done = subprocess.run(command, cwd=cache.workspace.root, env=environment)
    return "could not be made again: the reason is above" if done.returncode else ""


def _compare(stage: str, lost: Sequence[Problem]) -> str:
    made = digests([problem.path for problem in lost if problem.path], "md5", "Hashed files:")
    same = all(made[problem.path] == problem.digest.removesuffix(".dir") for problem in lost if problem.path)
    return f"made again by {stage}, {'the same bytes' if same else 'other bytes, which dvc.lock has now'}"
