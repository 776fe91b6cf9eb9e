"""`dvc repro` inside a process of ours, without DVC's advice about git and remotes."""

import logging
import re
import signal
import sys


def repro(*arguments: str) -> int:
    """The exit code of `dvc repro` with `arguments` in the current directory; DVC prints what failed."""
    from dvc.cli import main as dvc
    from dvc.commands.repro import CmdRepro
    from dvc.exceptions import ReproductionError

    def run(command: CmdRepro) -> int:
        try:
            stages = command.repo.reproduce(**command._common_kwargs, **command._repro_kwargs)
        except ReproductionError as error:
            if reason := _signal_in(str(error.__cause__)):
                print(f"error: {error}: {reason}", file=sys.stderr, flush=True)
            raise
        if not stages:
            print("Data and pipelines are up to date.")
        return 0

    # DVC has no setting for either; what its own method prints after that is the advice to push.
    CmdRepro.run = run
    logging.getLogger("dvc.repo.scm_context").setLevel(logging.WARNING)
    return int(dvc(["repro", *arguments]))


def _signal_in(cause: str) -> str:
    """What ended a stage that could not say so itself; "": it ended by itself."""
    code = re.search(r"exited with (-?\d+)$", cause)
    # A shell adds 128.
    number = max(-int(code[1]), int(code[1]) - 128) if code else 0
    if number not in signal.valid_signals():
        return ""
    found = signal.Signals(number)
    hint = ", as the system does if there is no memory left" if found == signal.SIGKILL else ""
    return f"its process was ended by {found.name}{hint}."
