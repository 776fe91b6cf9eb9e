"""Properties of the current process, which the operating system keeps, and of those that it starts."""

import ctypes
import os
import re
import select
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path


def die_with_parent() -> None:
    """Make the kernel end this process when its parent is killed, so that it can't overwrite later output."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def die_with_dvc() -> None:
    """End this process, a stage, when DVC is killed, also if DVC's shell goes on.

    Some shells, such as dash, wait for even their only command, and nothing tells them that DVC is gone.
    """
    die_with_parent()
    # Without /proc, with an old kernel, or if DVC has just ended, there is nothing to wait for.
    with suppress(OSError, AttributeError):
        shell = Path("/proc", str(os.getppid()))
        if b"-c" not in (shell / "cmdline").read_bytes().split(b"\0"):
            return
        [dvc] = re.findall(r"^PPid:\s+(\d+)$", (shell / "status").read_text(), re.MULTILINE)
        ended = os.pidfd_open(int(dvc))
        threading.Thread(target=_end_after, args=(ended,), daemon=True).start()


def _end_after(ended: int) -> None:
    select.select([ended], [], [])
    os.kill(os.getpid(), signal.SIGTERM)


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
