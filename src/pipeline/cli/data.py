"""The verb that adds the user's own images."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.app import app, repository
from pipeline.console import say


@app.command()
def add_data(
    path: Annotated[str, typer.Argument(help="A folder of pictures, an archive or a table; or its address.")],
    name: Annotated[
        str | None, typer.Option(help="The data set's name; by default made from the path.")
    ] = None,
    image_size: Annotated[str | None, typer.Option(help="Height and width in pixels, such as 64x64.")] = None,
    colour: Annotated[str | None, typer.Option(help="grey or rgb.")] = None,
    resize: Annotated[str | None, typer.Option(help="pad, crop or stretch.")] = None,
    test_fraction: Annotated[
        float | None,
        typer.Option(
            help="The part kept for testing if there is no test split; default 0.2.", min=0.01, max=0.9
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting of the source, such as label_column=breed."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite conf/data/NAME.yaml.")] = False,
    update: Annotated[bool, typer.Option("--update", help="Pin the data again after a change.")] = False,
) -> None:
    """Describe your images in conf/data/NAME.yaml, for `data=NAME`."""
    from pipeline.data.adding.add import add_data as add
    from pipeline.data.adding.options import AddOptions

    workspace = repository()
    typed = tuple(settings or ())
    options = AddOptions(path, name, image_size, colour, resize, test_fraction, typed, force, update)
    for line in add(options, workspace, Path.cwd()):
        say(line)
