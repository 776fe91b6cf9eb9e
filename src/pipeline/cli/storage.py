"""The verbs that check what is stored, and share it with other clones."""

from typing import Annotated

import typer

from pipeline.cli.app import app, repository, tracking_of
from pipeline.console import say

Remote = Annotated[str | None, typer.Option(help="The name of a DVC remote; by default DVC's default one.")]


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
    """Check files, runs and registered models against the records. Exit code 1: damage found."""
    from pipeline.verification.verify import VerifyOptions, verify

    workspace = repository()
    options = VerifyOptions(everything, repair, clean)
    raise typer.Exit(verify(workspace, tracking_of(workspace), options))


@app.command()
def push(remote: Remote = None) -> None:
    """Send what was trained here, also in sweeps, to a DVC remote."""
    from pipeline.trials.remote import push

    say(push(repository(), remote))


@app.command()
def pull(remote: Remote = None) -> None:
    """Fetch what others trained from a DVC remote. It is not trained here again."""
    from pipeline.trials.remote import pull

    say(pull(repository(), remote))
