"""The verbs that share trainings with other clones."""

from typing import Annotated

import typer

from pipeline.cli.app import app, repository
from pipeline.console import say

Remote = Annotated[str | None, typer.Option(help="The name of a DVC remote; by default DVC's default one.")]


@app.command()
def push(remote: Remote = None) -> None:
    """Send everything that was trained here, sweeps included, to a DVC remote."""
    from pipeline.trials.remote import push

    say(push(repository(), remote))


@app.command()
def pull(remote: Remote = None) -> None:
    """Fetch what others trained from a DVC remote, so that it is not trained here again."""
    from pipeline.trials.remote import pull

    say(pull(repository(), remote))
