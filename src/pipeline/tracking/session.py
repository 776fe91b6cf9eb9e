"""The MLflow boundary: MLflow shows what the pipeline recorded on disk; it is never waited for."""

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
from pipeline.errors import PipelineError, PrunedError
from pipeline.tracking.occasion import explain_difference, others_weights
from pipeline.tracking.record import Record, Status, unsent
from pipeline.tracking.run import OtherWeightsError, Projection, RunDeletedError, shown
from pipeline.tracking.store import (
    answers,
    import_mlflow,
    is_local,
    is_server,
    leave_deleted_folder,
    open_store,
    unreachable,
)

_SECONDS_BETWEEN_UPDATES = 1.0
_SECONDS_FOR_FIRST_EPOCH = 5.0


class Training:
    """What the train stage tells of itself while it runs."""

    def __init__(self, record: Record, workspace: Workspace, sender: "_Sender") -> None:
        self._record, self._workspace, self._sender = record, workspace, sender
        self.named = RunName(id=record.id, name=record.name)
        self._epochs: list[Epoch] = []

    def log_epoch(self, epoch: Epoch) -> None:
        """Record one more epoch."""
        self._epochs.append(epoch)
        write_history(self._record.files.history, History(self._epochs, best_epoch=0))
        self._sender.wake()

    def finish(self, result: Trained) -> None:
        """Record the trained model, and name the run in models/run.json."""
        self._record.finish_training(result, self._workspace)
        _warn_of_other_weights(self._record)


@contextmanager
def training(config: Config, workspace: Workspace, code: Mapping[str, Path]) -> Iterator[Training]:
    """Begin, or go on with, the run of the training inside the `with`, and end it with a truthful status.

    Args:
        config: all of it.
        workspace: has data/processed.
        code: the files that the training depends on, by the names that dvc.yaml has for them.
    """
    record = Record.start(config, workspace, code)
    # What Keras does before the first epoch takes twice as long beside MLflow's imports; the epochs don't.
    with _showing(record, config.tracking, workspace, patience=_SECONDS_FOR_FIRST_EPOCH) as sender:
        yield Training(record, workspace, sender)


@contextmanager
def evaluation(config: Config, workspace: Workspace) -> Iterator[None]:
    """Add the evaluation inside the `with` to the run that trained the model."""
    record = Record.resume(config, workspace)
    with _showing(record, config.tracking, workspace):
        yield
        record.add_evaluation(workspace)


@contextmanager
def _showing(
    record: Record, tracking: TrackingSection, workspace: Workspace, patience: float = 0.0
) -> Iterator["_Sender"]:
    sender = _Sender(record, tracking, workspace, patience)
    trained = "result" in record.run
    sender.start()
    try:
        yield sender
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit | PrunedError)
        # A training that ended well did so whatever becomes of its evaluation.
        status: Status = "FINISHED" if trained else "KILLED" if stopped else "FAILED"
        record.set_state(status, f"{type(error).__name__}: {error}")
        raise
    else:
        record.set_state("FINISHED")
    finally:
        sender.finish()


class _Sender(threading.Thread):
    """Brings MLflow up to date beside the training, which goes on whether that works or not."""

    def __init__(
        self, record: Record, tracking: TrackingSection, workspace: Workspace, patience: float
    ) -> None:
        super().__init__(name="mlflow", daemon=True)
        self._record, self._tracking, self._workspace = record, tracking, workspace
        self._patience = patience  # seconds to wait for something to send at first
        self._news = threading.Event()
        self._finished = threading.Event()
        self._projection: Projection | None = None
        self._imported = threading.Event()
        self._given_up = threading.Event()
        self._failed = True  # until all was sent
        self._warning = threading.Lock()
        self._warned = self._sent_others = False

    def wake(self) -> None:
        self._news.set()

    def finish(self) -> None:
        """Send the rest, or say where it is kept.

        A slow server is waited for no longer than `tracking.timeout` in all.
        """
        self._finished.set()
        self._news.set()
        self._imported.wait()
        self.join(self._tracking.timeout if is_server(self._tracking, self._workspace) else None)
        if self.is_alive():
            self._given_up.set()
            error = TimeoutError(f"it takes longer than tracking.timeout, {self._tracking.timeout:g} s")
            self._warn(_unreachable(error, self._tracking, self._workspace))
        elif self._projection and not self._failed:
            say(f"MLflow run {self._record.label} ({self._projection.status}): {self._projection.run_id}")

    def run(self) -> None:
        """Send what is new until all is sent, then let go of the record."""
        try:
            self._send_until_finished()
        finally:
            # Only now, if this was given up: two that send at once would double rows.
            if self._failed:
                self._record.release()
            else:
                self._record.discard()

    def _send_until_finished(self) -> None:
        self._news.wait(self._patience)
        try:
            import_mlflow(self._tracking, self._workspace)
        finally:
            self._imported.set()
        while True:
            last = self._finished.is_set()
            self._news.clear()
            self._update()
            if last:
                return
            # Short epochs are sent several at a time: each sending takes the processor from the training.
            self._finished.wait(_SECONDS_BETWEEN_UPDATES)
            self._news.wait()

    def _update(self) -> None:
        try:
            leave_deleted_folder(self._workspace)
            with self._record.sending():
                if self._projection is None:
                    self._projection = _project(self._record, self._tracking, self._workspace, self._given_up)
                self._projection.update()
            self._failed = False
        except (RunDeletedError, OtherWeightsError) as error:
            self._failed = False
            self._warn(str(error))
        except Exception as error:
            # What was in flight may have arrived: next time, ask MLflow what it has.
            self._projection = None
            self._warn(_unreachable(error, self._tracking, self._workspace))
            self._failed = True
        if not self._failed and not self._sent_others:
            self._sent_others = True
            send_others(self._tracking, self._workspace, self._given_up)

    def _warn(self, text: str) -> None:
        """Say it once, however often it is tried again."""
        with self._warning:
            first, self._warned = not self._warned, True
        if first:
            warn(text)


def send_others(
    tracking: TrackingSection, workspace: Workspace, given_up: threading.Event | None = None
) -> None:
    """Send the runs that are kept, as part of a command about something else: failures are warnings."""
    try:
        for line in _send_kept(tracking, workspace, given_up):
            say(line)
    except Exception as error:
        warn(_unreachable(error, tracking, workspace))


def close_dead(tracking: TrackingSection, workspace: Workspace) -> None:
    """End in MLflow the runs of trainings whose process died, also while it ended the run; without any, that
    costs nothing.
    """
    for path in (workspace.scratch / "runs").glob("*/state.json"):
        try:
            with FileLock(path.parent.with_suffix(".lock"), timeout=0):
                # Those that finished without a server wait for the next training.
                dead = '"FINISHED"' not in path.read_text(encoding="utf-8")
        except (Timeout, FileNotFoundError):
            continue
        if dead:
            send_others(tracking, workspace)
            return


def sync(tracking: TrackingSection, workspace: Workspace) -> list[str]:
    """Send what is kept, and rebuild the workspace's run from its artifacts if MLflow lacks it.

    Returns:
        A line for each run that was sent, and one for the run of the workspace.

    Raises:
        PipelineError: MLflow can't be reached, or refused.
    """
    try:
        lines = _send_kept(tracking, workspace)
        if workspace.run.exists():
            record = Record(workspace)
            run_id = is_local(tracking, workspace) and shown(record)
            if not run_id:
                with record.sending():
                    projection = _project(record, tracking, workspace)
                    projection.update()
                run_id = projection.run_id
            where = "in models/" if workspace.home == workspace.root.absolute() else "of the trial"
            lines.append(f"The model {where} is of MLflow run {record.label}: {run_id}")
    except (RunDeletedError, OtherWeightsError) as error:
        lines.append(str(error))
    except PipelineError:
        raise
    except Exception as error:
        raise PipelineError(_unreachable(error, tracking, workspace)) from error
    return lines


def _project(
    record: Record,
    tracking: TrackingSection,
    workspace: Workspace,
    given_up: threading.Event | None = None,
) -> Projection:
    """The run of `record`, in the experiment that its own configuration names."""
    named = {"experiment": record.experiment} if record.experiment else {}
    return Projection(open_store(tracking.model_copy(update=named), workspace, given_up), record)


def _send_kept(
    tracking: TrackingSection, workspace: Workspace, given_up: threading.Event | None = None
) -> list[str]:
    """Send each kept run; one that is refused stays and does not hold up the others."""
    lines = []
    for record in unsent(workspace):
        try:
            with record.sending():
                projection = _project(record, tracking, workspace, given_up)
                projection.update()
            lines.append(f"Sent run {record.label} ({projection.status}): {projection.run_id}")
        except (RunDeletedError, OtherWeightsError) as error:
            lines.append(str(error))
        except Exception as error:
            if not answers(tracking, workspace):
                raise
            refused = isinstance(error, PipelineError)
            reason = str(error) if refused else unreachable(error, tracking, workspace)
            lines.append(f"Run {record.name} was not sent and stays in .pipeline/runs: {reason}")
            continue
        record.discard()
    return lines


def _unreachable(error: Exception, tracking: TrackingSection, workspace: Workspace) -> str:
    return (
        f"{unreachable(error, tracking, workspace)} The run is kept in .pipeline/runs; the next command that "
        "finds the server sends it, or `pipeline sync`."
    )


def _warn_of_other_weights(record: Record) -> None:
    """Say that the same training gave other weights before, and what may explain that."""
    *earlier, occasion = record.occasions
    if other := others_weights(occasion, earlier):
        warn(
            f"this training gave other weights than {record.name} on its first occasion "
            f"({other.summary}). They differ in: {explain_difference(other, occasion)}. The run in MLflow "
            "keeps the first ones."
        )
