"""Hand a stage over to a process that has everything imported.

For a small model, a stage's imports take longer than its work. In a sweep, a worker
(`pipeline.trials.worker`) has done the imports, and `python -m pipeline.stages NAME` passes the stage on.
"""

import json
import socket
import sys
from contextlib import suppress
from pathlib import Path

from pipeline.processes.context import TrialContext


def hand_over(context: TrialContext, stage: str) -> int:
    """Let the trial's worker run `stage` here, with this process's output, and return its exit code.

    If this process ends first, the stage ends too.
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
