"""Verification: the verb that checks what is there."""

from typing import Annotated

import typer

from pipeline.cli.app import app, repository


@app.command()
def verify(
    everything: Annotated[
        bool, typer.Option("--all", help="Also objects that nothing names, and all files of a server.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Restore what is broken from another copy, or make it again.")
    ] = False,
    clean: Annotated[bool, typer.Option("--clean", help="Remove what killed processes left.")] = False,
) -> None:
    """Check cache, workspace, runs and registered models against what is recorded. Exit code 1: broken."""
    from pipeline.config.params import read_params
    from pipeline.verification.verify import Wanted, verify

    workspace = repository()
    wanted = Wanted(everything, repair, clean)
    raise typer.Exit(verify(workspace, read_params(workspace.params).tracking, wanted))
