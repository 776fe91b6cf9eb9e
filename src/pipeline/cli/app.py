"""The application that the verbs are registered with, and what they share."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.artifacts.workspace import Workspace, here
from pipeline.console import say
from pipeline.environment import prepare_environment

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
