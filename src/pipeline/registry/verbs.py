"""The commands promote, rollback and history: check the options, print the results, return the exit code."""

import re

from pipeline.artifacts.workspace import Workspace
from pipeline.config.compose import compose_each
from pipeline.config.params import read_params
from pipeline.config.schema import PromotionSection, TrackingSection
from pipeline.console import say
from pipeline.errors import PipelineError
from pipeline.registry import history as journal
from pipeline.registry import promotion

CLOSED = 3  # the exit code if the gate is closed
_NAME = re.compile(r"[A-Za-z0-9_][\w .,=+-]{0,99}")


def promote(
    workspace: Workspace,
    run: str | None,
    name: str | None,
    alias: str,
    *,
    dry_run: bool,
    force: bool,
    reason: str,
) -> int:
    """Promote a run, show the checks, and return the exit code.

    Raises:
        PipelineError: If the gate could not be evaluated, or a name is invalid.
    """
    _refuse_names(name, alias)
    if force and not reason.strip():
        raise PipelineError("--force needs --reason TEXT, which is recorded in the journal.")
    result = promotion.promote(
        run,
        name,
        alias,
        _settings(workspace),
        _tracking(workspace),
        workspace,
        dry_run=dry_run,
        force=force,
        reason=reason,
    )
    for line in (*journal.checks_table(result.checks), "") if result.checks else ():
        say(line)
    say(result.message)
    return 0 if result.is_open or result.version else CLOSED


def rollback(workspace: Workspace, name: str | None, alias: str, to: str | None, reason: str) -> None:
    """Roll back, and print the version that has the alias now.

    Raises:
        PipelineError: If there is no version to go back to, or a name is invalid.
    """
    _refuse_names(name, alias)
    say(promotion.rollback(name, alias, to, _tracking(workspace), workspace, reason))


def history(workspace: Workspace, name: str | None) -> None:
    """Print the journal.

    Raises:
        PipelineError: If the journal is damaged, or a name is invalid.
    """
    _refuse_names(name)
    for line in journal.history(name, _tracking(workspace), workspace):
        say(line)


def _settings(workspace: Workspace) -> PromotionSection:
    return next(compose_each(workspace.root / "conf", [[]])).promotion


def _tracking(workspace: Workspace) -> TrackingSection:
    return read_params(workspace.params).tracking


def _refuse_names(name: str | None, alias: str = "champion") -> None:
    """Refuse names that can't be used in MLflow or in the name of the journal's file."""
    if name is not None and not _NAME.fullmatch(name):
        raise PipelineError(f"--name {name!r} is not valid: use up to 100 letters, digits, spaces and _.,=+-")
    # MLflow reserves latest, and v1 and so on.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,49}", alias) or re.fullmatch(r"(?i)v\d+|latest", alias):
        raise PipelineError(
            f"--as {alias!r} is not valid: use letters, digits, _ and -, a letter first, not latest or v1."
        )
