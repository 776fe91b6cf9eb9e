"""The console command `pipeline`: the verbs that are not stages and not Hydra's."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.artifacts.workspace import Workspace, here
from pipeline.config.params import read_params
from pipeline.console import say
from pipeline.errors import sentences

app = typer.Typer(
    help="Verbs beside `dvc repro`, `mlflow ui` and `python -m pipeline`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


Remote = Annotated[str | None, typer.Option(help="A DVC remote's name; the default one if not given.")]


@app.command()
def sync() -> None:
    """Bring MLflow up to date: send runs and sweeps it missed, rebuild the workspace's run if it was lost."""
    from pipeline.results.publish import publish_all
    from pipeline.tracking import session as tracking

    workspace = _workspace()
    for line in tracking.sync(read_params(workspace.params).tracking, workspace):
        say(line)
    for line in publish_all(workspace):
        say(line)


@app.command()
def adopt(
    run: Annotated[str, typer.Argument(help="The name or id of a trial's run, or the beginning of one.")],
    name: Annotated[
        str | None, typer.Option(help="Of the experiment; made from the run's if not given.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over an experiment of that name.")] = False,
) -> None:
    """Make a trial of a sweep an experiment in conf/, which `dvc repro` restores without training."""
    from pipeline.results.adopt import adopt

    workspace = _workspace()
    for line in adopt(run, workspace, name, force):
        say(line)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A run's name or id in MLflow, or the beginning of one.")],
    second: Annotated[str, typer.Argument(help="Another's.")],
) -> None:
    """Show how two runs differ, what each reached, and whether the difference is more than chance."""
    from pipeline.results.compare import compare

    workspace = _workspace()
    for line in compare((first, second), read_params(workspace.params).tracking, workspace):
        say(line)


@app.command()
def push(remote: Remote = None) -> None:
    """Send what was ever trained here, sweeps included, to a DVC remote."""
    from pipeline.trials.remote import push

    say(push(_workspace(), remote))


@app.command()
def pull(remote: Remote = None) -> None:
    """Fetch what others sent to a DVC remote: what they trained is not trained here again."""
    from pipeline.trials.remote import pull

    say(pull(_workspace(), remote))


def _workspace() -> Workspace:
    workspace = here()
    workspace.refuse_foreign_environment(Path.cwd())
    return workspace


def main() -> None:
    """Entry point of the console script."""
    with sentences():
        app()
