"""A sweep in MLflow: a run of its own that stands above the runs of its trials."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.config.schema import TrackingSection
from pipeline.errors import PipelineError
from pipeline.tracking.occasion import now
from pipeline.tracking.record import Status, differs_text
from pipeline.tracking.run import (
    ID_TAG,
    PARENT_TAG,
    SWEEP_TAG,
    RunDeletedError,
    parent_file,
    shortened,
)
from pipeline.tracking.store import Store, find_run, is_local, open_store, search, unreachable, uri_of

if TYPE_CHECKING:
    from mlflow.entities import Run

PRUNED_TAG = "pipeline.pruned"
# Set when all of the sweep is there.
DIGEST_TAG = "pipeline.sweep_sha256"
_FEW = 20  # runs


@dataclass(frozen=True)
class SweepTrial:
    """A trial of a sweep, as far as its run must know of it."""

    differs: Mapping[str, str]
    id: str | None  # of its training: the tag pipeline.id of its run
    pruned: str | None = None  # why, if it was


@dataclass(frozen=True)
class SweepRun:
    """All that MLflow shows of a sweep."""

    id: str
    name: str
    digest: str  # of what is shown: the same says that MLflow has it already
    status: Status
    start: int  # milliseconds since 1970
    end: int | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    note: str  # in Markdown, above everything else
    tables: Mapping[str, str]  # CSV, which MLflow shows as a table, by the names of the artifacts
    trials: Sequence[SweepTrial]
    draw: Callable[[Path], None]  # writes the figures into a folder


def send(sweep: SweepRun, folder: Path, tracking: TrackingSection, workspace: Workspace) -> str | None:
    """Have MLflow show the sweep and its trials below it; None if it does already.

    Args:
        sweep: what to show.
        folder: of the sweep; gets the figures, and the id of the MLflow run in the file `parent`.
        tracking: names the store and the experiment.
        workspace: of the repository.

    Raises:
        RunDeletedError: somebody deleted the sweep's run.
        PipelineError: MLflow can't be reached, or refused.
    """
    # The address may hold a password.
    sent = hashlib.sha256(f"{uri_of(tracking, workspace)} {sweep.digest}".encode()).hexdigest()
    receipt = folder / "sent"
    with FileLock(folder / "sent.lock"):
        if is_local(tracking, workspace):
            tags = {SWEEP_TAG: sweep.id, DIGEST_TAG: sweep.digest}
            if find_run(workspace, tags, only_finished=False):
                return None
        elif receipt.exists() and receipt.read_text(encoding="utf-8") == sent:
            return None
        sweep.draw(folder / "figures")
        try:
            run_id = _Parent(sweep, folder, open_store(tracking, workspace)).update()
        except PipelineError:
            raise
        except Exception as error:
            raise PipelineError(
                f"{unreachable(error, tracking, workspace)} The sweep is kept in .pipeline/sweeps; "
                "`pipeline sync` sends it."
            ) from error
        write_text(receipt, sent)
    return run_id


class _Parent:
    """The sweep's own run, found or created."""

    def __init__(self, sweep: SweepRun, folder: Path, store: Store) -> None:
        """Find the run by its tag, else create it.

        Raises:
            RunDeletedError: it was deleted in MLflow.
        """
        self._sweep, self._folder, self._store, self._client = sweep, folder, store, store.client
        self._run = store.find(SWEEP_TAG, sweep.id) or self._create()
        self._id: str = self._run.info.run_id
        if self._run.info.lifecycle_stage == "deleted":
            raise RunDeletedError(
                f"The run {sweep.name} of the sweep was deleted in MLflow: `mlflow runs restore --run-id "
                f"{self._id}` brings it back."
            )
        write_text(parent_file(folder), self._id + "\n")

    def update(self) -> str:
        """Send all of it; the id of the run."""
        from mlflow.entities import Metric, Param, RunTag

        self._adopt_trials()
        known, moment = self._run.data, now()
        tags = {**self._sweep.tags, "mlflow.note.content": self._sweep.note}
        self._client.log_batch(
            self._id,
            [
                Metric(key, value, moment, 0)
                for key, value in self._sweep.metrics.items()
                if known.metrics.get(key) != value
            ],
            # Params can't change.
            [
                Param(key, shortened(value))
                for key, value in self._sweep.params.items()
                if key not in known.params
            ],
            [RunTag(key, shortened(value)) for key, value in tags.items()],
        )
        for name, table in self._sweep.tables.items():
            self._client.log_text(self._id, table, name)
        figures = self._folder / "figures"
        if figures.exists():
            self._client.log_artifacts(self._id, str(figures), "figures")
        if self._sweep.end:
            self._client.set_terminated(self._id, self._sweep.status, self._sweep.end)
        else:
            self._client.update_run(self._id, self._sweep.status)
        # Last, since it says that all the above is there.
        self._client.set_tag(self._id, DIGEST_TAG, self._sweep.digest)
        return self._id

    def _create(self) -> "Run":
        from mlflow.tracking.context.registry import resolve_tags

        tags = resolve_tags({SWEEP_TAG: self._sweep.id, "mlflow.source.name": "pipeline"})
        return self._client.create_run(self._store.experiment, self._sweep.start, tags, self._sweep.name)

    def _adopt_trials(self) -> None:
        """Put the runs of the trials below this one, wherever they were trained and stood before."""
        own = f"{SWEEP_TAG}.{self._sweep.id}"
        members = search(self._client, f"tags.`{own}` LIKE '%'")
        by_id = {run.data.tags.get(ID_TAG): run for run in members}
        missing = {trial.id for trial in self._sweep.trials if trial.id} - by_id.keys()
        # One by one they take longer than all that there are.
        wanted = [f"= '{each}'" for each in missing] if len(missing) <= _FEW else ["LIKE '%'"]
        for condition in wanted:
            found = search(self._client, f"tags.`{ID_TAG}` {condition}")
            by_id |= {run.data.tags[ID_TAG]: run for run in found}
        unfinished = {run.data.tags[own]: run for run in members if run.info.status != "FINISHED"}
        for trial in self._sweep.trials:
            differs = differs_text(trial.differs)
            run = by_id.get(trial.id) if trial.id else unfinished.get(shortened(differs))
            if run:
                tags = {PARENT_TAG: self._id, own: differs}
                self._set_tags(run, tags | ({PRUNED_TAG: trial.pruned} if trial.pruned else {}))

    def _set_tags(self, run: "Run", tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        texts = {key: shortened(value) for key, value in tags.items()}
        if not texts.items() <= run.data.tags.items():
            self._client.log_batch(run.info.run_id, tags=[RunTag(*tag) for tag in texts.items()])
