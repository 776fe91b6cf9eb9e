"""Handing the work of a stage over to a process that has the imports behind it.

A stage's imports take longer than the stage of a small model. In a sweep a worker (`pipeline.trials.worker`)
has them behind it, and `python -m pipeline.stages NAME` only passes on what DVC asked of it.
"""

import json
import os
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
