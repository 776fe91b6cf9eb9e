"""What is asked of the operating system for a process."""

import ctypes
import signal
import sys
from pathlib import Path


def die_with_parent() -> None:
    """Have the kernel end this process when its parent is killed, lest it write late over other output."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def name_process(name: str) -> None:
    """Have `top` and `ps -o comm` show this process by a name: all forks have the same command."""
    if sys.platform == "linux":
        Path("/proc/self/comm").write_text(name)
