"""`pipeline verify`: compare what exists with what was recorded; optionally repair it and clean up."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.console import count, say
from pipeline.registry.promotion import translate_mlflow_errors
from pipeline.verification.cache import Cache, check_cache, check_workspace
from pipeline.verification.leftovers import clean, find_leftovers
from pipeline.verification.problems import Problem
from pipeline.verification.repair import repair
from pipeline.verification.runs import check_mlflow, check_registry, check_run

BROKEN = 1  # the exit code if something is not as recorded


@dataclass(frozen=True)
class VerifyOptions:
    """The options of `pipeline verify`."""

    everything: bool = False
    repair: bool = False
    clean: bool = False


def verify(workspace: Workspace, tracking: TrackingSection, options: VerifyOptions) -> int:
    """Check everything, print the problems, and return the exit code: 0 if there are none, else 1.

    Raises:
        PipelineError: If dvc.lock can't be read, or MLflow can't be reached.
    """
    cache = Cache(workspace)
    with (
        translate_mlflow_errors(tracking, workspace, "could not be checked"),
        tempfile.TemporaryDirectory() as folder,
    ):
        problems = _check(cache, tracking, Path(folder) / "before", options.everything)
        if problems and options.repair:
            say(*repair(problems, cache, tracking, Path(folder)))
            problems = _check(cache, tracking, Path(folder) / "after", options.everything)
    say(*_report_leftovers(workspace, options.clean))
    if problems:
        command = "pipeline verify --all --repair" if options.everything else "pipeline verify --repair"
        advice = "" if options.repair else f" `{command}` fixes what it can."
        say(f"{count(len(problems), 'problem')} found.{advice}")
        return BROKEN
    say("Everything is as recorded.")
    return 0


def _check(cache: Cache, tracking: TrackingSection, folder: Path, everything: bool) -> list[Problem]:
    start = time.monotonic()
    problems: list[Problem] = []
    is_new = not cache.has_outputs()

    def note(what: str, found: Sequence[Problem]) -> None:
        problems.extend(found)
        say(f"{what}: {'as recorded' if not found else count(len(found), 'problem')}.")
        texts = [problem.text for problem in found if not (is_new and problem.stage)]
        if len(texts) < len(found):
            texts.append("Nothing that dvc.lock names is here: `dvc repro` makes it, `dvc pull` fetches it.")
        say(*(f"  {text}" for text in texts))

    note("DVC's cache", check_cache(cache, everything))
    note("The workspace and dvc.lock", check_workspace(cache))
    note("Run, model and metrics", check_run(cache.workspace))
    found, files = check_mlflow(tracking, cache.workspace, folder, everything)
    note(f"{count(files, 'file')} of MLflow", found)
    note("Registered models", check_registry(tracking, cache.workspace))
    say(f"Checked in {time.monotonic() - start:.1f} s.")
    return problems


def _report_leftovers(workspace: Workspace, remove: bool) -> Iterator[str]:
    found = find_leftovers(workspace)
    for what, path in found:
        yield f"Left over: {path} ({what})."
    if found and remove:
        clean(workspace, found)
        yield f"Removed {count(len(found), 'leftover')}."
    elif found:
        yield "`pipeline verify --clean` removes leftovers."
