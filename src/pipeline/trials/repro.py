"""`dvc repro` inside a process of ours, without DVC's advice about git and remotes."""

import logging


def repro(*arguments: str) -> int:
    """The exit code of `dvc repro` with `arguments` in the current directory."""
    from dvc.cli import main as dvc
    from dvc.commands.repro import CmdRepro

    def run(command: CmdRepro) -> int:
        stages = command.repo.reproduce(**command._common_kwargs, **command._repro_kwargs)
        if not stages:
            print("Data and pipelines are up to date.")
        return 0

    # DVC has no setting for either; what its own method prints after that is the advice to push.
    CmdRepro.run = run
    logging.getLogger("dvc.repo.scm_context").setLevel(logging.WARNING)
    return int(dvc(["repro", *arguments]))
