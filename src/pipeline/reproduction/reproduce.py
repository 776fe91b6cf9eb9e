"""`pipeline reproduce`: rebuild a run, report what is the same, and record the outcome with the run."""

from dataclasses import replace

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.console import say, warn
from pipeline.errors import PipelineError
from pipeline.processes.temporary import temporary_folder
from pipeline.reproduction.links import INPUTS, RESULTS, Link, compare
from pipeline.reproduction.rebuild import rebuilt
from pipeline.reproduction.recorded import recorded_here, recorded_in_mlflow
from pipeline.tracking.occasion import Occasion, keep, occasions_of, show_occasion

EQUAL, DIFFERENT, WITHIN_TOLERANCE = 0, 1, 3  # exit codes


def reproduce(
    name: str | None,
    tracking: TrackingSection,
    workspace: Workspace,
    tolerance: float,
    own_packages: bool = False,
) -> int:
    """Rebuild a run, compare it link by link, and record the outcome as an occasion of the run.

    The name is one of `pipeline.results.lookup`, or of a registered version; without it, the run of the
    workspace is rebuilt. `own_packages` uses the packages of the lock file of the run's commit.

    Returns:
        The exit code: 0 if weights, predictions and metrics are equal bit for bit, 3 if predictions and
        metrics are within the tolerance, else 1.

    Raises:
        PipelineError: If the run is unknown or incomplete, its code is not available, or a stage failed.
    """
    with temporary_folder() as folder:
        if name is None:
            old = recorded_here(workspace)
        else:
            old = recorded_in_mlflow(name, tracking, workspace, folder)
        changes = " with its uncommitted changes" if old.code.patch else ""
        say(f"Rebuilding {old.label} from the commit {old.code.commit[:12]}{changes} ...")
        with rebuilt(old, workspace, own_packages) as clone:
            new = recorded_here(clone)
            links = compare(old, new, tolerance)
            [made] = occasions_of(clone, new.run["id"])
    code, verdict = judge(links, tolerance)
    for link in links:
        say(f"  {link.name:<13}  {link.state:<16}  {link.detail}".rstrip())
    say(f"{old.label}: {verdict}.")
    _record(replace(made, reproduction=verdict), old.run["id"], tracking, workspace)
    return code


def judge(links: list[Link], tolerance: float) -> tuple[int, str]:
    """Return the exit code, and the outcome in words, with the name of the first link that differs."""
    state = {link.name: link.state for link in links}
    differ = [link.name for link in links if link.state not in ("same", "not recorded")]
    first = f"; the first link that differs is {differ[0]}" if differ else ""
    unknown = [name for name in RESULTS if state[name] == "not recorded"]
    if unknown:
        return DIFFERENT, f"not reproduced; {unknown[0]} is not recorded"
    if all(state[name] == "same" for name in INPUTS):
        if all(state[name] == "same" for name in RESULTS):
            return EQUAL, "reproduced, equal bit for bit"
        close = all(state[name] != "different" for name in ("predictions", "metrics"))
        if close and state["weights"] != "damaged":
            return WITHIN_TOLERANCE, f"reproduced within {tolerance:g}{first}"
    return DIFFERENT, f"not reproduced{first}"


def _record(occasion: Occasion, run: str, tracking: TrackingSection, workspace: Workspace) -> None:
    keep(occasion, run, workspace)
    try:
        show_occasion(occasion, run, tracking, workspace)
    except PipelineError as error:
        warn(f"{error} The outcome is kept in .pipeline/occasions/{run}.")
