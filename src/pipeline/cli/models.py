"""The model in use."""

import os
from typing import Annotated

import typer

from pipeline.cli.app import app, repository


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

    workspace = repository()
    token = os.environ.get("PIPELINE_TOKEN") or None
    names, sites = tuple(allowed_hosts or ()), tuple(allow_origin or ())
    settings = Settings(model, host, port, workers, names, sites, token, max_body, batch_ms)
    serve(settings, workspace)
