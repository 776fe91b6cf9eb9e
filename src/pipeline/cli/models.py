"""The model in use."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli.app import app, repository
from pipeline.console import say

_MODEL = "A file, a run, or NAME@ALIAS or NAME/3 in the registry."
Format = Literal["table", "jsonl", "csv"]
ExportFormat = Literal["onnx", "keras", "litert", "saved-model"]


@app.command()
def predict(
    paths: Annotated[list[str], typer.Argument(help="Pictures, folders, archives, arrays; - : from a pipe.")],
    model: Annotated[str | None, typer.Option(help=_MODEL)] = None,
    top: Annotated[int, typer.Option(help="How many labels each gets.", min=1, max=1000)] = 3,
    form: Annotated[
        Format | None, typer.Option("--format", help="By default a table; in a pipe JSON lines.")
    ] = None,
) -> None:
    """Say what is on pictures."""
    from pipeline.serving.predict import predict
    from pipeline.serving.predictor import Predictor
    from pipeline.serving.reference import resolve

    predictor = Predictor.load(resolve(model, repository()).path)
    if not predict(predictor, paths, top, form):
        raise typer.Exit(1)


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="Of the file, or of the folder of a SavedModel.")],
    form: Annotated[ExportFormat, typer.Option("--format", help="What other tools read.")],
    model: Annotated[str | None, typer.Option(help="A run, or NAME@ALIAS or NAME/3.")] = None,
) -> None:
    """Write the model for other tools, checked on images before the file gets its name."""
    from pipeline.serving.export import export

    say(export(model, form, path, repository()))


@app.command()
def serve(
    model: Annotated[str | None, typer.Option(help=_MODEL)] = None,
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

    workspace = repository()
    token = os.environ.get("PIPELINE_TOKEN") or None
    names, sites = tuple(allowed_hosts or ()), tuple(allow_origin or ())
    host = host.strip("[]").lower()  # as an address has it, [::1]
    settings = Settings(model, host, port, workers, names, sites, token, max_body, batch_ms)
    serve(settings, workspace)
