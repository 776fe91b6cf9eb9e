"""The verb that checks stored files and runs."""

from typing import Annotated

import typer

from pipeline.cli.app import app, repository


@app.command()
def verify(
    everything: Annotated[
        bool, typer.Option("--all", help="Also check unreferenced objects, and all files on a server.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Restore what is broken from another copy, or build it again.")
    ] = False,
    clean: Annotated[bool, typer.Option("--clean", help="Remove what killed processes left behind.")] = False,
) -> None:
    """Check cache, workspace, runs and registered models against the records. Exit code 1: damage found."""
    from pipeline.config.params import read_params
    from pipeline.verification.verify import VerifyOptions, verify

    workspace = repository()
    options = VerifyOptions(everything, repair, clean)
    raise typer.Exit(verify(workspace, read_params(workspace.params).tracking, options))
