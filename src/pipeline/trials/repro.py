"""Run `dvc repro` in this process, without DVC's advice about git and remotes."""

import logging
import re
import signal
import sys
from typing import Any

from pipeline.errors import OF_DVC, explain


def repro(*arguments: str) -> int:
    """Run `dvc repro` with `arguments` in the current directory and return its exit code.

    DVC prints what failed.
    """
    from dvc.cli import main as dvc
    from dvc.commands.repro import CmdRepro

    def run(command: CmdRepro) -> int:
        try:
            stages = command.repo.reproduce(**command._common_kwargs, **command._repro_kwargs)
        except Exception as error:
            signalled = _signal_in(str(error.__cause__))
            reason = f"{error}: {signalled}" if signalled else explain(error)
            if reason and not reason.startswith(OF_DVC):
                print(f"error: {reason}", file=sys.stderr, flush=True)
            raise
        if not stages:
            print("Data and pipelines are up to date.")
        return 0

    _give_up_on_a_full_disk()
    # DVC has no setting for this: its own method goes on to print the advice to push.
    CmdRepro.run = run
    logging.getLogger("dvc.repo.scm_context").setLevel(logging.WARNING)
    return int(dvc(["repro", *arguments]))


def _give_up_on_a_full_disk() -> None:
    """Let writing to DVC's databases fail; by default it is tried without end, whatever the error is."""
    from dvc_data.hashfile.cache import Cache

    def set_once(self: Cache, *args: Any, retry: bool = False, **options: Any) -> bool:
        return bool(super(Cache, self).set(*args, **options))

    def transact_once(self: Cache, retry: bool = False) -> Any:
        return super(Cache, self).transact()

    # SQLite waits a minute for other processes before it fails.
    Cache.set, Cache.transact = set_once, transact_once


def _signal_in(cause: str) -> str:
    """Return a text about the signal that ended a stage, or "" if the stage ended by itself."""
    code = re.search(r"exited with (-?\d+)$", cause)
    # A shell adds 128 to the number of the signal.
    number = max(-int(code[1]), int(code[1]) - 128) if code else 0
    if number not in signal.valid_signals():
        return ""
    found = signal.Signals(number)
    hint = ", as the system does when memory runs out" if found == signal.SIGKILL else ""
    return f"its process was ended by {found.name}{hint}."
