"""The verbs that run the pipeline and bring MLflow up to date."""

import os
from functools import partial
from typing import Annotated

import typer

from pipeline.artifacts.workspace import Workspace
from pipeline.cli.app import app, repository, tracking_of
from pipeline.console import count, say, warn
from pipeline.errors import PipelineError
from pipeline.processes.system import variables_for_dvc


@app.command()
def repro() -> None:
    """Run what changed (`dvc repro`), and show the results in MLflow."""
    from pipeline.config.params import read_generated
    from pipeline.results.change import differs_by_rounding
    from pipeline.trials.repro import repro

    workspace = repository()
    workspace.refuse_copy()
    # DVC would show what is wrong with a file in a merge, but not what helps.
    for generated in (workspace.params, workspace.dvc_lock):
        if generated.exists():
            read_generated(generated)
    os.chdir(workspace.root)
    os.environ |= variables_for_dvc()
    if code := repro():
        raise typer.Exit(code)
    _sync(workspace)
    if sentence := differs_by_rounding(workspace):
        warn(sentence)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="The port on 127.0.0.1.", min=1, max=65535)] = 5000,
) -> None:
    """Show the runs in the browser. Starts MLflow and prints the address of the training runs."""
    from pipeline.tracking.ui import refuse_busy, serve

    workspace = repository()
    tracking = tracking_of(workspace)
    refuse_busy(port, tracking, workspace)
    _sync(workspace)
    raise typer.Exit(serve(tracking, workspace, port))


@app.command()
def sync() -> None:
    """Send MLflow what it missed, and rebuild what it lost."""
    from pipeline.tracking.record import waiting

    workspace = repository()
    _sync(workspace)
    if kept := waiting(workspace):
        raise PipelineError(f"{count(kept, 'run')} could not be sent: see above.")


def _sync(workspace: Workspace) -> None:
    from pipeline.results.publish import publish_all
    from pipeline.tracking import session as tracking

    settings, errors = tracking_of(workspace), []
    # A run that cannot be sent must not hold up the sweeps.
    for send in (partial(tracking.sync, settings), publish_all):
        try:
            for line in send(workspace):
                say(line)
        except PipelineError as error:
            errors.append(str(error))
    if errors:
        raise PipelineError("\nerror: ".join(dict.fromkeys(errors)))
