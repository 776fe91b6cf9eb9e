"""Processes that end with the one that started them, and the warm one that a stage hands its work to.

A stage's imports take longer than the stage of a small model. In a sweep a worker (`pipeline.sweeps.worker`)
has them behind it, and `python -m pipeline.stages NAME` only passes on what DVC asked of it.
"""

import ctypes
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

# The environment variable that names the worker's socket; those that begin alike are passed on to it.
PREFIX = "PIPELINE_"
WORKER = f"{PREFIX}WORKER"
# And those that tell a stage whose trial it is: the sweep's folder, the values that differ, how it is pruned.
SWEEP = f"{PREFIX}SWEEP"
DIFFERS = f"{PREFIX}DIFFERS"
PRUNING = f"{PREFIX}PRUNING"


def die_with_parent() -> None:
    """Have the kernel end this process when its parent is killed, lest it write late over other output."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def name_process(name: str) -> None:
    """Have `top` and `ps -o comm` show this process by a name: all forks have the same command."""
    if sys.platform == "linux":
        Path("/proc/self/comm").write_text(name)


def hand_over(address: str, stage: str) -> int:
    """Have the worker at `address` run `stage` here, with this process's output; the exit code.

    If this process ends first, so does the stage.
    """
    passed_on = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    request = {"stage": stage, "place": str(Path.cwd()), "environment": passed_on}
    answer = b""
    # A worker that dies closes the connection.
    with suppress(ConnectionError), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [json.dumps(request).encode()], [1, 2])
        answer = connection.recv(16)
    if not answer:
        print(f"error: the worker that ran the stage {stage} died.", file=sys.stderr)
        return 1
    return int(answer)
