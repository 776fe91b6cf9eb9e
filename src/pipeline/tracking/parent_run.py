"""Show a sweep in MLflow as a parent run of the runs of its trials."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.config.schema import TrackingSection
from pipeline.tracking.database import find_run, lacks_tag
from pipeline.tracking.mlflow_run import EVALUATION_TAG, ID_TAG, NOTE_TAG, PARENT_TAG, MlflowRun, shortened
from pipeline.tracking.occasion import now
from pipeline.tracking.record import Status, differs_text
from pipeline.tracking.run import SWEEP_TAG, TRAINED_IN_TAG, SettledError, parent_file
from pipeline.tracking.store import Store, is_local, open_store, search, telling_failures, uri_of

if TYPE_CHECKING:
    from mlflow.entities import Run

PRUNED_TAG = "pipeline.pruned"
# Set once the sweep is complete in MLflow.
DIGEST_TAG = "pipeline.sweep_sha256"
_MAX_SINGLE_SEARCHES = 20  # for more runs than that, one search for all runs is faster


@dataclass(frozen=True)
class SweepTrial:
    """What the run of a trial shows about the sweep."""

    differs: Mapping[str, str]  # the values in which it differs from the other trials
    id: str | None  # the id of its training, which is the tag pipeline.id of its run
    pruned: str | None = None  # the reason, if it was pruned
    trained_here: bool = False  # whether this sweep trained it, rather than an earlier command


@dataclass(frozen=True)
class SweepRun:
    """Everything that MLflow shows of a sweep."""

    id: str
    name: str
    digest: str  # of everything that is shown; if it is unchanged, nothing has to be sent
    status: Status
    start: int  # milliseconds since 1970
    end: int | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    note: str  # the description, in Markdown
    tables: Mapping[str, str]  # the names of artifacts and their contents: CSV, which MLflow shows as tables
    trials: Sequence[SweepTrial]
    draw: Callable[[Path], None]  # writes the figures into a folder


def send(sweep: SweepRun, folder: Path, tracking: TrackingSection, workspace: Workspace) -> str | None:
    """Send the sweep to MLflow, with the runs of its trials below it, unless MLflow already shows it.

    Args:
        sweep: What to show.
        folder: The folder of the sweep, which gets the figures, and the MLflow run's id in the file `parent`.
        tracking: The settings of the store and the experiment.
        workspace: The workspace of the repository.

    Returns:
        The id of the sweep's run in MLflow; None if there was nothing to send.

    Raises:
        SettledError: If somebody deleted the sweep's run.
        PipelineError: If MLflow can't be reached or rejects a request.
    """
    # Only a hash is stored, because the address may contain a password.
    sent = hashlib.sha256(f"{uri_of(tracking, workspace)} {sweep.digest}".encode()).hexdigest()
    receipt = folder / "sent"
    with FileLock(folder / "sent.lock"):
        if is_local(tracking, workspace):
            tags = {SWEEP_TAG: sweep.id, DIGEST_TAG: sweep.digest}
            trials = [trial.id for trial in sweep.trials]
            # Runs of trials that have been rebuilt since then lack the sweep's tag.
            if find_run(workspace, tags, only_finished=False) and not lacks_tag(
                workspace, trials, f"{SWEEP_TAG}.{sweep.id}"
            ):
                return None
        elif receipt.exists() and receipt.read_text(encoding="utf-8") == sent:
            return None
        sweep.draw(folder / "figures")
        hint = " The sweep is kept in .pipeline/sweeps; `pipeline sync` sends it."
        with telling_failures(tracking, workspace, hint=hint):
            parent = _Parent(sweep, folder, open_store(tracking, workspace))
            pending = any((workspace.scratch / "runs" / trial).exists() for trial in parent.update())
            if not pending:
                # Last, because these mean that everything is there.
                parent.complete()
                write_text(receipt, sent)
    return parent.id


class _Parent:
    """The sweep's own run."""

    def __init__(self, sweep: SweepRun, folder: Path, store: Store) -> None:
        """Find the run by its tag, or create it.

        Raises:
            SettledError: If the run was deleted in MLflow.
        """
        self._sweep, self._folder, self._store, self._client = sweep, folder, store, store.client
        with store.creating():
            self._run = MlflowRun(store.client, store.find({SWEEP_TAG: sweep.id}) or self._create())
        if self._run.is_deleted:
            raise SettledError(
                f"The run {sweep.name} of the sweep was deleted in MLflow: `mlflow runs restore --run-id "
                f"{self._run.id}` brings it back."
            )
        write_text(parent_file(folder), self._run.id + "\n")

    @property
    def id(self) -> str:
        """MLflow's id of the run."""
        return self._run.id

    def complete(self) -> None:
        """Mark the sweep as complete in MLflow."""
        self._run.set_tags({DIGEST_TAG: self._sweep.digest})

    def update(self) -> set[str]:
        """Send everything; return the ids of trials whose runs are not in MLflow."""
        run, sweep = self._run, self._sweep
        missing = self._link_trials()
        run.log_results(sweep.metrics, now())
        run.log_params(sweep.params)
        run.set_tags({**sweep.tags, NOTE_TAG: sweep.note})
        for name, table in sweep.tables.items():
            self._client.log_text(run.id, table, name)
        figures = self._folder / "figures"
        if figures.exists():
            self._client.log_artifacts(run.id, str(figures), "figures")
        if sweep.end:
            self._client.set_terminated(run.id, sweep.status, sweep.end)
        else:
            self._client.update_run(run.id, sweep.status)
        return missing

    def _create(self) -> "Run":
        from mlflow.tracking.context.registry import resolve_tags

        tags = resolve_tags({SWEEP_TAG: self._sweep.id, "mlflow.source.name": "pipeline"})
        return self._client.create_run(self._store.experiment, self._sweep.start, tags, self._sweep.name)

    def _link_trials(self) -> set[str]:
        """Tag the runs of the trials with the sweep, and put those that it trained below its run.

        Runs that were trained earlier, by `dvc repro` or another sweep, stay where they are.

        Returns:
            The ids of trials that have no run in MLflow.
        """
        member = f"{SWEEP_TAG}.{self._sweep.id}"
        members = search(self._client, f"tags.`{member}` LIKE '%'")
        by_id = {run.data.tags.get(ID_TAG): run for run in members}
        missing = {trial.id for trial in self._sweep.trials if trial.id} - by_id.keys()
        many = len(missing) > _MAX_SINGLE_SEARCHES
        for condition in ["LIKE '%'"] if many else [f"= '{each}'" for each in missing]:
            found = search(self._client, f"tags.`{ID_TAG}` {condition}")
            by_id |= {run.data.tags[ID_TAG]: run for run in found if EVALUATION_TAG not in run.data.tags}
        unfinished = {run.data.tags[member]: run for run in members if run.info.status != "FINISHED"}
        for trial in self._sweep.trials:
            differs = differs_text(trial.differs)
            found_run = by_id.get(trial.id) if trial.id else unfinished.get(shortened(differs))
            if not found_run:
                continue
            run = MlflowRun(self._client, found_run)
            tags = {member: differs, **({PRUNED_TAG: trial.pruned} if trial.pruned else {})}
            if trial.trained_here or run.tags.get(TRAINED_IN_TAG) == self._sweep.id:
                tags[PARENT_TAG] = self._run.id
            run.set_tags(tags)
        return missing - by_id.keys()
