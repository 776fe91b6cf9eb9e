"""The application that the verbs are registered with, and what they share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.artifacts.workspace import Workspace, here
from pipeline.console import say
from pipeline.environment import prepare_environment

if TYPE_CHECKING:
    from pipeline.config.schema import TrackingSection

app = typer.Typer(
    help="Look at runs, compare them, and share them. To train, use `dvc repro` for the configuration in "
    "conf/, or `python -m pipeline KEY=VALUE` for another one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"pipeline {version('image-classifier-pipeline')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """What holds for every verb."""


def repository() -> Workspace:
    """The workspace of this package, with the libraries' environment prepared.

    Raises:
        PipelineError: the command runs inside another clone.
    """
    workspace = here()
    workspace.refuse_foreign_environment(Path.cwd())
    prepare_environment(workspace.scratch / "home")
    return workspace


def tracking_of(workspace: Workspace) -> "TrackingSection":
    """Where the workspace's runs go.

    Raises:
        PipelineError: params.yaml is missing or refused.
    """
    # It takes as long as a prediction, which does not need it.
    from pipeline.config.params import read_params

    return read_params(workspace.params).tracking
