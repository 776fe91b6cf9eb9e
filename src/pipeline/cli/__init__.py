"""The command line `pipeline`: one module for each group of verbs."""

from pipeline.errors import exit_on_error


def main() -> None:
    """Entry point of the console script."""
    with exit_on_error():
        # Most of the time until a verb starts: Ctrl-C can come here, too.
        from pipeline.cli.verbs import app
        from pipeline.processes.temporary import own_temporary_folder

        with own_temporary_folder():
            app()
