"""The command line `pipeline`: one module for each group of verbs."""

from pipeline.cli.app import app
from pipeline.errors import exit_on_error
from pipeline.processes.temporary import own_temporary_folder

# Each module registers its verbs; `pipeline --help` lists them in this order.
# isort: off
from pipeline.cli import data, training, runs, models, promotion, storage  # noqa: F401
# isort: on


def main() -> None:
    """Entry point of the console script."""
    with exit_on_error(), own_temporary_folder():
        app()
