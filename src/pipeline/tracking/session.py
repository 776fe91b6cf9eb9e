"""Send what the pipeline records on disk to MLflow, without ever holding up a training."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.artifacts.history import Epoch, History, Trained, write_history
from pipeline.artifacts.onnx_file import RunName
from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import Config, TrackingSection
from pipeline.console import say, warn
from pipeline.errors import PrunedError
from pipeline.tracking.failures import telling_failures, unreachable
from pipeline.tracking.mlflow_run import Status
from pipeline.tracking.occasion import explain_difference
from pipeline.tracking.record import Record
from pipeline.tracking.run import SettledError, shown
from pipeline.tracking.sending import KEPT, Outcome, send_kept, send_whole, try_kept
from pipeline.tracking.sending_process import Send, sender
from pipeline.tracking.store import is_local, is_server

_SECONDS_BETWEEN_UPDATES = 1.0
_SECONDS_FOR_FIRST_EPOCH = 5.0


class Training:
    """Records the progress of the train stage while it runs."""

    def __init__(self, record: Record, workspace: Workspace, sender: "_Sender") -> None:
        self._record, self._workspace, self._sender = record, workspace, sender
        self.named = RunName(id=record.id, name=record.name)
        self._epochs: list[Epoch] = []

    def log_epoch(self, epoch: Epoch) -> None:
        """Record an epoch that has ended."""
        self._epochs.append(epoch)
        write_history(self._record.files.history, History(self._epochs, best_epoch=0))
        self._sender.wake()

    def finish(self, result: Trained) -> None:
        """Record the trained model, and write models/run.json."""
        self._record.finish_training(result, self._workspace)
        _warn_of_other_weights(self._record)


@contextmanager
def training(config: Config, workspace: Workspace, code: Mapping[str, Path]) -> Iterator[Training]:
    """Start or continue the run of the training inside the `with`, and set its status at the end.

    The arguments are those of `identify`.
    """
    record = Record.start(config, workspace, code)
    with _showing(record, config.tracking, workspace) as sender:
        yield Training(record, workspace, sender)


@contextmanager
def evaluation(config: Config, workspace: Workspace) -> Iterator[None]:
    """Add the evaluation inside the `with` to the run that trained the model."""
    record = Record.resume(config, workspace)
    with _showing(record, config.tracking, workspace):
        yield
        record.add_evaluation(workspace)


@contextmanager
def _showing(record: Record, tracking: TrackingSection, workspace: Workspace) -> Iterator["_Sender"]:
    trained = "result" in record.run
    sender = _Sender(record, tracking, workspace, only_end=trained)
    sender.start()
    try:
        yield sender
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit | PrunedError)
        # A finished training stays finished, even if its evaluation fails.
        status: Status = "FINISHED" if trained else "KILLED" if stopped else "FAILED"
        record.set_state(status, f"{type(error).__name__}: {error}")
        raise
    else:
        record.set_state("FINISHED")
    finally:
        sender.finish()


class _Sender(threading.Thread):
    """Updates MLflow alongside the training, which continues whether or not that works."""

    def __init__(
        self, record: Record, tracking: TrackingSection, workspace: Workspace, only_end: bool
    ) -> None:
        super().__init__(name="mlflow", daemon=True)
        self._record, self._tracking, self._workspace = record, tracking, workspace
        self._only_end = only_end  # whether there is nothing to show before the end
        self._news = threading.Event()
        self._finished = threading.Event()
        self._imported = threading.Event()
        self._given_up = threading.Event()
        self._outcome = Outcome(complete=False)
        self._warning = threading.Lock()
        self._warned = False

    def wake(self) -> None:
        self._news.set()

    def finish(self) -> None:
        """Send the rest, or say where it is kept.

        This waits for a slow server for at most `tracking.timeout` seconds.
        """
        self._finished.set()
        self._news.set()
        self._imported.wait()
        self.join(self._tracking.timeout if is_server(self._tracking, self._workspace) else None)
        if self.is_alive():
            self._given_up.set()
            error = TimeoutError(f"it takes longer than tracking.timeout, {self._tracking.timeout:g} s")
            self._warn(unreachable(error, self._tracking, self._workspace) + KEPT)
        elif self._outcome.complete and self._outcome.run:
            say(f"MLflow run {self._record.label} ({self._outcome.status}): {self._outcome.run}")

    def run(self) -> None:
        """Send what is new until everything is sent, then release the record."""
        try:
            self._send_until_finished()
        finally:
            # Not before, even after a timeout: two senders at once would duplicate rows.
            if self._outcome.complete:
                self._record.discard()
            else:
                self._record.release()

    def _send_until_finished(self) -> None:
        try:
            with sender(self._record, self._tracking, self._workspace, self._given_up) as send:
                self._imported.set()
                # Show a training whose first epoch takes long; before an evaluation ends, it shows nothing.
                if self._only_end:
                    self._finished.wait()
                else:
                    self._news.wait(_SECONDS_FOR_FIRST_EPOCH)
                while True:
                    last = self._finished.is_set()
                    self._news.clear()
                    self._update(send)
                    if last:
                        return
                    # Short epochs are sent several at a time, because each update slows the training down.
                    self._finished.wait(_SECONDS_BETWEEN_UPDATES)
                    self._news.wait()
        finally:
            self._imported.set()

    def _update(self, send: Send) -> None:
        self._outcome = send()
        if self._outcome.warning:
            self._warn(self._outcome.warning)
        say(*self._outcome.others)

    def _warn(self, text: str) -> None:
        """Print the first warning only, however often sending is retried."""
        with self._warning:
            first, self._warned = not self._warned, True
        if first:
            warn(text)


def close_dead(tracking: TrackingSection, workspace: Workspace) -> None:
    """Send the final status of runs whose process died, even if it died while it was ending the run.

    If there are none, this costs nothing.
    """
    for path in (workspace.scratch / "runs").glob("*/state.json"):
        try:
            with FileLock(path.parent.with_suffix(".lock"), timeout=0):
                # Runs that finished without a server wait for the next training.
                dead = '"FINISHED"' not in path.read_text(encoding="utf-8", errors="replace")
        except (Timeout, FileNotFoundError):
            continue
        if dead:
            lines, warning = try_kept(tracking, workspace)
            say(*lines)
            if warning:
                warn(warning)
            return


def sync(tracking: TrackingSection, workspace: Workspace) -> Iterator[str]:
    """Send the kept runs, and rebuild the workspace's run if MLflow lacks it; yield a line for each.

    Raises:
        PipelineError: If MLflow can't be reached or rejects a request.
    """
    with telling_failures(tracking, workspace, hint=KEPT):
        yield from send_kept(tracking, workspace)
        if not workspace.run.exists():
            return
        record = Record(workspace)
        try:
            run_id = is_local(tracking, workspace) and shown(record)
            run_id = run_id or send_whole(record, tracking, workspace).id
        except SettledError as error:
            yield str(error)
            return
    where = "of the trial" if workspace.is_temporary else "in models/"
    yield f"The model {where} belongs to MLflow run {record.label}: {run_id}"


def _warn_of_other_weights(record: Record) -> None:
    """Warn if the first occasion of this training gave different weights, and say what may explain it."""
    *earlier, occasion = record.occasions
    other = next((other for other in earlier if other.weights_sha256), occasion)
    if other.weights_sha256 != occasion.weights_sha256:
        warn(
            f"this training gave different weights from the first occasion of {record.label} "
            f"({other.summary}). They differ in: {explain_difference(other, occasion)}. The run in MLflow "
            "keeps the first weights."
        )
