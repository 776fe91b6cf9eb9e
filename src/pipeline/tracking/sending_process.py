"""Send the record of a stage to MLflow from a process of its own.

MLflow's imports take as long as an evaluation, and in a thread they would hold up the stage for as long.
"""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Pipe

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.environment import prepare_environment
from pipeline.processes.system import die_with_parent
from pipeline.tracking.record import Record, State
from pipeline.tracking.sending import KEPT, Outcome, Sending
from pipeline.tracking.store import import_mlflow

_SECONDS_BETWEEN_CHECKS = 0.1

Send = Callable[[], Outcome]


@contextmanager
def sender(
    record: Record, tracking: TrackingSection, workspace: Workspace, given_up: threading.Event
) -> Iterator[Send]:
    """Import MLflow, here or in another process, and provide a function that sends `record` as it is now.

    Once `given_up` is set, nothing more is sent.
    """
    if "mlflow" in sys.modules:
        import_mlflow(tracking, workspace)
        sending = Sending(tracking, workspace, given_up)
        yield lambda: sending.send(record)
        return
    connection, other_end = Pipe()
    with connection, other_end:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(other_end.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[other_end.fileno()],
            process_group=0,  # Ctrl-C goes only to this process, which then sends the end of the run.
        )
        other_end.close()

        def reply() -> Outcome:
            while not connection.poll(_SECONDS_BETWEEN_CHECKS):
                if given_up.is_set():
                    return Outcome(False)  # Who gave up says why.
            received: Outcome = connection.recv()
            return received

        def send() -> Outcome:
            try:
                connection.send(record.state)
                return reply()
            except (EOFError, OSError):
                return Outcome(False, warning=f"The process that sends to MLflow ended.{KEPT}")

        try:
            with suppress(EOFError, OSError):
                connection.send((record.files, tracking, workspace))
                reply()
            yield send
        finally:
            process.kill()
            process.wait()


def main(descriptor: str) -> None:
    """Send a record each time that its state arrives at the other end of the connection `descriptor`."""
    connection = Connection(int(descriptor))
    with suppress(EOFError, BrokenPipeError):  # The stage has ended.
        files, tracking, workspace = connection.recv()
        prepare_environment(workspace.scratch / "home")
        import_mlflow(tracking, workspace)
        connection.send(None)
        sending = Sending(tracking, workspace)
        while True:
            state: State = connection.recv()
            record = Record(files)
            record.state = state  # What is on disk may be older, if the disk is full.
            connection.send(sending.send(record))


if __name__ == "__main__":
    die_with_parent()
    main(sys.argv[1])
