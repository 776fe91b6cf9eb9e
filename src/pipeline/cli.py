"""The console command `pipeline`: the verbs that are neither stages nor Hydra's."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.artifacts.workspace import Workspace, here
from pipeline.config.params import read_params
from pipeline.console import say
from pipeline.environment import prepare_environment
from pipeline.errors import PipelineError, exit_on_error

app = typer.Typer(
    help="Look at runs, compare them, and share them. To train, use `dvc repro` for the configuration in "
    "conf/, or `python -m pipeline KEY=VALUE` for another one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


Remote = Annotated[str | None, typer.Option(help="The name of a DVC remote; by default DVC's default one.")]


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


@app.command()
def repro() -> None:
    """Run what changed (`dvc repro`), bring MLflow up to date, and say what was reached."""
    from pipeline.trials.repro import repro

    workspace = _workspace()
    os.chdir(workspace.root)
    # Stages are run by the Python that runs this, also where its environment is not activated.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if code := repro():
        raise typer.Exit(code)
    _sync(workspace)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Where to serve on 127.0.0.1.", min=1, max=65535)] = 5000,
) -> None:
    """Show the runs in the browser: starts MLflow and prints the address of the training runs."""
    from pipeline.tracking.ui import refuse_busy, serve

    workspace = _workspace()
    tracking = read_params(workspace.params).tracking
    refuse_busy(port)
    _sync(workspace)
    raise typer.Exit(serve(tracking, workspace, port))


@app.command()
def sync() -> None:
    """Bring MLflow up to date: send what it missed, rebuild what it lost."""
    _sync(_workspace())


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="Names or ids of runs in MLflow, or the beginning of one; or a sweep's name."),
    ],
) -> None:
    """Show how runs differ, what each reached, and whether a difference is more than chance."""
    from pipeline.results.compare import compare

    workspace = _workspace()
    for line in compare(runs, read_params(workspace.params).tracking, workspace):
        say(line)


@app.command()
def adopt(
    run: Annotated[str, typer.Argument(help="The name or id of a trial's run, or the beginning of one.")],
    name: Annotated[
        str | None, typer.Option(help="The experiment's name; by default made from the run's.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an experiment of that name.")] = False,
) -> None:
    """Write a trial of a sweep as an experiment in conf/, which `dvc repro` restores without training."""
    from pipeline.results.adopt import adopt

    workspace = _workspace()
    for line in adopt(run, workspace, name, force):
        say(line)


@app.command()
def serve(
    model: Annotated[
        str | None, typer.Option(help="A file, a run, or NAME@ALIAS or NAME/3 in the registry.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(help="How many processes answer.", min=1, max=64)] = 1,
    allowed_hosts: Annotated[
        list[str] | None, typer.Option(help="A name by which others know this server.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="A site whose pages may ask, https://NAME.")
    ] = None,
    max_body: Annotated[
        int, typer.Option(help="The largest body that is read, in MiB.", min=1, max=1024)
    ] = 16,
    batch_ms: Annotated[
        float, typer.Option(help="How long a picture may wait for others.", min=0, max=1000)
    ] = 5,
) -> None:
    """Answer over HTTP, with a page to try the model at /, until SIGTERM or Ctrl-C."""
    from pipeline.serving.server import Settings, serve

    workspace = _workspace()
    token = os.environ.get("PIPELINE_TOKEN") or None
    names, sites = tuple(allowed_hosts or ()), tuple(allow_origin or ())
    settings = Settings(model, host, port, workers, names, sites, token, max_body, batch_ms)
    serve(settings, workspace)


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
        float, typer.Option(help="How far probabilities and metrics may be apart.", min=0)
    ] = 0.001,
) -> None:
    """Rebuild a run from its code, configuration and data, and say link by link what is the same.

    Exit code 0: equal bit for bit; 3: predictions and metrics within the tolerance; 1: neither.
    """
    from pipeline.reproduction.reproduce import reproduce

    workspace = _workspace()
    tracking = read_params(workspace.params).tracking
    raise typer.Exit(reproduce(run, tracking, workspace, tolerance, environment))


@app.command()
def push(remote: Remote = None) -> None:
    """Send everything that was trained here, sweeps included, to a DVC remote."""
    from pipeline.trials.remote import push

    say(push(_workspace(), remote))


@app.command()
def pull(remote: Remote = None) -> None:
    """Fetch what others trained from a DVC remote, so that it is not trained here again."""
    from pipeline.trials.remote import pull

    say(pull(_workspace(), remote))


def _sync(workspace: Workspace) -> None:
    from pipeline.results.publish import publish_all
    from pipeline.tracking import session as tracking

    settings = read_params(workspace.params).tracking
    errors = []
    # What can't be sent of runs does not hold up the sweeps.
    try:
        for line in tracking.sync(settings, workspace):
            say(line)
    except PipelineError as error:
        errors.append(str(error))
    try:
        for line in publish_all(workspace):
            say(line)
    except PipelineError as error:
        errors.append(str(error))
    if errors:
        raise PipelineError("\nerror: ".join(dict.fromkeys(errors)))


def _workspace() -> Workspace:
    workspace = here()
    workspace.refuse_foreign_environment(Path.cwd())
    prepare_environment(workspace.scratch / "home")
    return workspace


def main() -> None:
    """Entry point of the console script."""
    with exit_on_error():
        app()
