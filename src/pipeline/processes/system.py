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


def path_of_this_python() -> str:
    """Return a PATH with the programs of this Python first, even if its environment is not activated."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
