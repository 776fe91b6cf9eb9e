"""Handing the work of a stage over to a process that has the imports behind it.

A stage's imports take longer than the stage of a small model. In a sweep a worker (`pipeline.trials.worker`)
has them behind it, and `python -m pipeline.stages NAME` only passes on what DVC asked of it.
"""

import json
import socket
import sys
from contextlib import suppress
from pathlib import Path

from pipeline.processes.context import TrialContext


def hand_over(context: TrialContext, stage: str) -> int:
    """Have the trial's worker run `stage` here, with this process's output; the exit code.

    If this process ends first, so does the stage.
    """
    request = {"stage": stage, "cwd": str(Path.cwd()), "environment": context.as_environment()}
    answer = b""
    # A worker that dies closes the connection.
    with suppress(ConnectionError), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(context.worker)
        socket.send_fds(connection, [json.dumps(request).encode()], [1, 2])
        answer = connection.recv(16)
    if not answer:
        print(f"error: the worker that ran the stage {stage} died.", file=sys.stderr)
        return 1
    return int(answer)
