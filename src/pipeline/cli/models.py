"""The verbs that use a model."""

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
    paths: Annotated[list[str], typer.Argument(help="Pictures, folders, archives, arrays; - reads a pipe.")],
    model: Annotated[str | None, typer.Option(help=_MODEL)] = None,
    top: Annotated[int, typer.Option(help="How many labels to show for each picture.", min=1, max=1000)] = 3,
    form: Annotated[
        Format | None, typer.Option("--format", help="By default a table, or JSON lines in a pipe.")
    ] = None,
) -> None:
    """Predict what pictures show."""
    from pipeline.artifacts.onnx_file import load
    from pipeline.serving.predict import predict
    from pipeline.serving.reference import resolve

    classifier = load(resolve(model, repository()).path, fast=True)
    if not predict(classifier, paths, top, form):
        raise typer.Exit(1)


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="The file to write, or the folder of a SavedModel.")],
    form: Annotated[ExportFormat, typer.Option("--format", help="The format that the other tool reads.")],
    model: Annotated[str | None, typer.Option(help="A run, or NAME@ALIAS or NAME/3.")] = None,
) -> None:
    """Export the model for other tools. The file is first checked to give the same predictions."""
    from pipeline.serving.export import export

    say(export(model, form, path, repository()))


@app.command()
def serve(
    model: Annotated[str | None, typer.Option(help=_MODEL)] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(help="The number of server processes.", min=1, max=64)] = 1,
    allowed_hosts: Annotated[
        list[str] | None, typer.Option(help="A name under which others reach this server.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="A site whose pages may send requests, https://NAME.")
    ] = None,
    max_body: Annotated[
        int, typer.Option(help="The largest accepted request body, in MiB.", min=1, max=1024)
    ] = 16,
    batch_ms: Annotated[
        float, typer.Option(help="How long a picture may wait for others to join its batch.", min=0, max=1000)
    ] = 5,
) -> None:
    """Serve the model over HTTP, with a page to try it at /. Ctrl-C or SIGTERM stops the server."""
    from pipeline.serving.server import Settings, serve

    workspace = repository()
    token = os.environ.get("PIPELINE_TOKEN") or None
    names, sites = tuple(allowed_hosts or ()), tuple(allow_origin or ())
    host = host.strip("[]").lower()  # an IPv6 address may be written [::1]
    settings = Settings(model, host, port, workers, names, sites, token, max_body, batch_ms)
    serve(settings, workspace)
