"""Properties of the current process, which the operating system keeps, and of those that it starts."""

import ctypes
import os
import signal
import sys
from pathlib import Path


def die_with_parent() -> None:
    """Make the kernel end this process when its parent is killed, so that it can't overwrite later output."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def name_process(name: str) -> None:
    """Set the name of this process in `top` and `ps -o comm`, because all forks have the same command."""
    if sys.platform == "linux":
        Path("/proc/self/comm").write_text(name)


def variables_for_dvc(python: Path = Path(sys.executable)) -> dict[str, str]:
    """Return the environment variables with which DVC runs stages, with the programs of `python` first.

    So a stage finds its Python even if the environment is not activated. The shell is not the user's, which
    may be one that can't read the commands of dvc.yaml, such as csh, or that runs none, such as nologin.
    """
    return {"PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}", "SHELL": "/bin/sh"}
