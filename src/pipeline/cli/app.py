"""The application that the verbs are registered with, and the functions that they share."""

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
    """Handle the options of `pipeline` itself."""


def repository() -> Workspace:
    """Return the workspace of this package, after preparing the environment of the libraries.

    Raises:
        PipelineError: If the command runs inside another clone.
    """
    workspace = here()
    workspace.refuse_foreign_environment(Path.cwd())
    prepare_environment(workspace.scratch / "home")
    return workspace


def tracking_of(workspace: Workspace) -> "TrackingSection":
    """Return the settings of the tracking server to which the workspace's runs are sent.

    Raises:
        PipelineError: If params.yaml is missing or invalid.
    """
    workspace.refuse_copy()
    # This import takes as long as a prediction, which does not need it.
    from pipeline.config.params import read_params

    return read_params(workspace.params).tracking
