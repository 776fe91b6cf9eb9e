"""The verbs that compare, adopt, rebuild and report runs."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.artifacts.workspace import write_text
from pipeline.cli.app import app, repository, tracking_of
from pipeline.console import say, say_markdown


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="Names or ids of runs in MLflow, or the beginning of one; or a sweep's name."),
    ],
) -> None:
    """Show how runs differ, and whether by more than chance."""
    from pipeline.results.compare import compare

    workspace = repository()
    say(*compare(runs, tracking_of(workspace), workspace))


@app.command()
def adopt(
    run: Annotated[str, typer.Argument(help="The name or id of a run, or the beginning of one.")],
    name: Annotated[
        str | None, typer.Option(help="The experiment's name; by default made from the run's.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an experiment of that name.")] = False,
) -> None:
    """Write a run as an experiment in conf/. `dvc repro` then restores it without training."""
    from pipeline.results.adopt import adopt

    say(*adopt(run, repository(), name, force))


@app.command()
def reproduce(
    run: Annotated[
        str | None,
        typer.Argument(
            help="A run's name or id, the beginning of one, or NAME@ALIAS or NAME/NUMBER of a registered "
            "model; by default the run whose model is in models/."
        ),
    ] = None,
    environment: Annotated[
        bool, typer.Option("--environment", help="Use the packages of the lock file of the run's commit.")
    ] = False,
    tolerance: Annotated[
        float, typer.Option(help="How much probabilities and metrics may differ.", min=0)
    ] = 0.001,
) -> None:
    """Rebuild a run from its code, configuration and data. Say step by step what is the same.

    Exit code 0: equal bit for bit; 3: predictions and metrics within the tolerance; 1: neither.
    """
    from pipeline.reproduction.reproduce import reproduce

    workspace = repository()
    tracking = tracking_of(workspace)
    raise typer.Exit(reproduce(run, tracking, workspace, tolerance, environment))


@app.command()
def report(
    base: Annotated[str, typer.Option(help="The commit to compare with.")] = "HEAD",
    output: Annotated[Path | None, typer.Option(help="A file to write, instead of the terminal.")] = None,
) -> None:
    """Say what changed since a commit: values, data, stages, results. Say whether the model is better."""
    from pipeline.results.change_report import report

    text = report(base, repository())
    if output and (output.is_symlink() or (output.exists() and not output.is_file() and not output.is_dir())):
        # Such as /dev/stdout: a file in its place would be lost to the reader.
        with output.open("w", encoding="utf-8") as stream:
            stream.write(text)
    elif output:
        write_text(output, text)
    else:
        say_markdown(text)
