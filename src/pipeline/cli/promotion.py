"""The verbs that decide which model the users get."""

from typing import Annotated

import typer

from pipeline.cli.app import app, repository, tracking_of
from pipeline.console import say
from pipeline.errors import PipelineError

Alias = Annotated[str, typer.Option("--as", help="The alias that users follow.")]
Registered = Annotated[str | None, typer.Option(help="The registered model; by default the data set's name.")]
Reason = Annotated[str, typer.Option(help="The reason, for the journal.")]


@app.command()
def promote(
    run: Annotated[
        str | None,
        typer.Argument(help="A run's name or id, or the beginning of one; by default that of models/."),
    ] = None,
    alias: Alias = "champion",
    name: Registered = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the checks.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Promote despite failed checks, on record; needs --reason.")
    ] = False,
    reason: Reason = "",
) -> None:
    """Give a run's model to the users if it passes the checks. Exit code 3: it does not.

    conf/promotion has the checks.
    """
    from pipeline.config.compose import compose_each
    from pipeline.registry.history import checks_table
    from pipeline.registry.promotion import promote

    if force and not reason.strip():
        raise PipelineError("--force needs --reason TEXT, which is recorded in the journal.")
    workspace = repository()
    settings = next(compose_each(workspace.root / "conf", [[]])).promotion
    tracking = tracking_of(workspace)
    result = promote(
        run, name, alias, settings, tracking, workspace, dry_run=dry_run, force=force, reason=reason
    )
    if result.checks:
        say(*checks_table(result.checks), "")
    say(result.message)
    if not result.is_open and result.version is None:
        raise typer.Exit(3)


@app.command()
def rollback(
    alias: Alias = "champion",
    name: Registered = None,
    to: Annotated[str | None, typer.Option(help="The version; by default the previous one.")] = None,
    reason: Reason = "",
) -> None:
    """Give an earlier version back to the users."""
    from pipeline.registry.promotion import rollback

    workspace = repository()
    say(rollback(name, alias, to, tracking_of(workspace), workspace, reason))


@app.command()
def history(name: Registered = None) -> None:
    """Show every promotion and rollback: who, when, how and why."""
    from pipeline.registry.history import history

    workspace = repository()
    say(*history(name, tracking_of(workspace), workspace))
