"""Send records of runs to MLflow: that of a stage, repeatedly while it grows, and those that were kept."""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.errors import PipelineError
from pipeline.tracking.failures import answers, unreachable
from pipeline.tracking.mlflow_run import MlflowRun
from pipeline.tracking.record import Record, unsent
from pipeline.tracking.run import Projection, SettledError

KEPT = (
    " The run is kept in .pipeline/runs; `pipeline sync` or the next command that finds the server sends it."
)


@dataclass(frozen=True)
class Outcome:
    """What an attempt to send a record led to."""

    complete: bool  # whether nothing more of the record, as it was, is to be sent
    run: str = ""  # the id of the run in MLflow
    status: str = ""  # of that run
    warning: str = ""
    others: tuple[str, ...] = ()  # a line for each kept run that was sent, too


class Sending:
    """The connection to MLflow by which a record is sent, again whenever there is more of it."""

    def __init__(
        self, tracking: TrackingSection, workspace: Workspace, given_up: threading.Event | None = None
    ) -> None:
        """The arguments are those of `pipeline.tracking.store.open_store`."""
        self._tracking, self._workspace, self._given_up = tracking, workspace, given_up
        self._projection: Projection | None = None
        self._sent_others = False

    def send(self, record: Record) -> Outcome:
        """Send what MLflow does not have of `record` and, the first time that this works, the kept runs."""
        warning = ""
        try:
            _leave_deleted_folder(self._workspace)
            with record.sending():
                if self._projection is None:
                    self._projection = Projection(record, self._tracking, self._workspace, self._given_up)
                self._projection.update(record)
        except SettledError as error:
            warning = str(error)
        except Exception as error:
            # Part of this update may have arrived: next time, ask MLflow what it has.
            self._projection = None
            return Outcome(False, warning=unreachable(error, self._tracking, self._workspace) + KEPT)
        others: list[str] = []
        if not self._sent_others:
            self._sent_others = True
            others, failure = try_kept(self._tracking, self._workspace, self._given_up)
            warning = warning or failure
        run = self._projection and self._projection.run
        return Outcome(True, run.id if run else "", run.status if run else "", warning, tuple(others))


def send_kept(
    tracking: TrackingSection, workspace: Workspace, given_up: threading.Event | None = None
) -> Iterator[str]:
    """Send each kept run, and yield a line for each; one that is rejected does not hold up the others.

    A training and its evaluation may have left two records of the same run.
    """
    last = ""
    for record in unsent(workspace):
        is_settled = True
        try:
            run = send_whole(record, tracking, workspace, given_up)
            line = f"Sent run {record.label} ({run.status}): {run.id}"
        except SettledError as error:
            line = str(error)
        except Exception as error:
            if not answers(tracking, workspace):
                raise
            is_settled, refused = False, isinstance(error, PipelineError)
            reason = str(error) if refused else unreachable(error, tracking, workspace)
            if refused:
                reason += (
                    " If the code was updated since, `pipeline sync` with the code of that time sends it. "
                    f"To give it up, remove {record.files.root}."
                )
            line = f"Run {record.label} was not sent and stays in .pipeline/runs: {reason}"
        if is_settled:
            record.discard()
        if line != last:
            yield line
        last = line


def try_kept(
    tracking: TrackingSection, workspace: Workspace, given_up: threading.Event | None = None
) -> tuple[list[str], str]:
    """Send the kept runs as a side task; return a line for each, and a warning if that failed."""
    try:
        return list(send_kept(tracking, workspace, given_up)), ""
    except Exception as error:
        return [], unreachable(error, tracking, workspace) + KEPT


def send_whole(
    record: Record,
    tracking: TrackingSection,
    workspace: Workspace,
    given_up: threading.Event | None = None,
) -> MlflowRun:
    """Send all of `record`, and return its run in MLflow."""
    with record.sending():
        projection = Projection(record, tracking, workspace, given_up)
        projection.update(record)
    return projection.run


def _leave_deleted_folder(workspace: Workspace) -> None:
    """Change to the repository if the current directory is gone.

    MLflow needs a current directory, but DVC deletes the one of a queued experiment that was killed.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        os.chdir(workspace.home)
