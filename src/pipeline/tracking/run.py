"""Show the record of a training as a run in MLflow.

Each update sends what MLflow does not have yet, so the same code logs a run while it trains, completes one
that was interrupted at any point and rebuilds one that was lost.
"""

import hashlib
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pipeline.artifacts.history import read_history
from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.config.section import leaves
from pipeline.console import percent
from pipeline.errors import PipelineError
from pipeline.tracking.database import find_run
from pipeline.tracking.evaluation_run import REPORTS_TAG, Evaluation
from pipeline.tracking.logged_model import MODEL_TAG, log_model
from pipeline.tracking.mlflow_run import (
    ERROR_TAG,
    EVALUATION_TAG,
    ID_TAG,
    LABEL_TAG,
    NAME_TAG,
    OCCASION_TAG,
    PARENT_TAG,
    MlflowRun,
    batches,
    data_tags,
    shortened,
)
from pipeline.tracking.occasion import log_occasion, now
from pipeline.tracking.record import Record, State
from pipeline.tracking.store import is_local, open_store, restore_command
from pipeline.tracking.stored import files_tag

if TYPE_CHECKING:
    from mlflow.entities import Run

SWEEP_TAG = "pipeline.sweep"
# The id of the sweep that trained the run; the run is a child of that sweep's run.
TRAINED_IN_TAG = "pipeline.trained_in_sweep"
_EPOCHS_PER_REQUEST = 150  # MLflow accepts 1,000 metrics in a request.


def parent_file(folder: Path) -> Path:
    """Return the file in the folder of a sweep that has the id of the sweep's MLflow run."""
    return folder / "parent"


class SettledError(PipelineError):
    """The run in MLflow stays as it is: somebody deleted it, or it has different weights."""


def shown(record: Record) -> str | None:
    """Return the id of the run in the repository's own store that shows all of `record`, or None.

    This does not import MLflow.
    """
    tags = {ID_TAG: record.id}
    if "result" in record.run:
        tags[MODEL_TAG] = record.run["result"]["weights_sha256"]
    for occasion in record.occasions:
        if occasion.weights_sha256:
            tags[f"{OCCASION_TAG}.{occasion.id}"] = occasion.summary
    if name := record.tracking.get("run_name"):
        tags[LABEL_TAG] = name
    # Somebody may have deleted the logged model in MLflow.
    run = find_run(record.files, tags, with_model=MODEL_TAG in tags)
    if run and record.files.metrics.exists():
        evaluated = {ID_TAG: record.id, REPORTS_TAG: Evaluation(record).digest}
        if not find_run(record.files, evaluated):
            return None
    return run


class Projection:
    """The MLflow run of one record."""

    def __init__(
        self,
        record: Record,
        tracking: TrackingSection,
        workspace: Workspace,
        given_up: threading.Event | None = None,
    ) -> None:
        """Find the run in the experiment that the record's own configuration names, or create it.

        The arguments apart from `record` are those of `open_store`.

        Raises:
            SettledError: If the run was deleted in MLflow.
            MlflowException: If the store can't be reached.
        """
        experiment = record.tracking.get("experiment", tracking.experiment)
        named = tracking.model_copy(update={"experiment": experiment})
        store = open_store(named, workspace, given_up)
        self._store, self._record, self._client = store, record, store.client
        found = store.find_or_create({ID_TAG: record.id}, self._create, without=EVALUATION_TAG)
        self.run = run = MlflowRun(store.client, found)
        if run.is_deleted:
            restore = restore_command(run.id, tracking, workspace)
            raise SettledError(f"The run {record.label} was deleted in MLflow: `{restore}` brings it back.")
        self._is_shared = not is_local(named, workspace)
        self._last_step = self._sent_step() if run.metrics else 0

    def update(self, record: Record) -> None:
        """Send what is in the record, as it is now, and not yet in MLflow.

        The final status of the training is sent even if its files can't be stored.

        Raises:
            SettledError: If the run in MLflow has different weights.
            MlflowException: If the store can't be reached.
            PipelineError: If an artifact is missing or damaged.
            OSError: If artifacts can't be stored.
        """
        self._record = record
        # Check these before the files are read, because the stage goes on writing at the same time.
        state, trained = self._record.state, "result" in self._record.run
        evaluated = self._record.files.metrics.exists()
        if self._is_shared and trained:
            self._read_again()
        try:
            for occasion in self._record.occasions:
                log_occasion(self.run, occasion)
            if trained:
                self._refuse_other_weights()
            self._send(trained, evaluated)
        except (OSError, PipelineError):
            # The store itself may work; if it doesn't, the first error says more.
            with suppress(Exception):
                self._set_status(state, evaluated)
            raise
        self._set_status(state, evaluated)

    def _send(self, trained: bool, evaluated: bool) -> None:
        self._describe()
        self._rename()
        if self._record.files.history.exists():
            self._log_epochs(trained)
        model = log_model(self._store, self.run, self._record) if trained else None
        if evaluated:
            Evaluation(self._record).show(self._store, self.run, model)
        if model:
            plain = {key: value for key, value in self.run.metrics.items() if not key.startswith("test_")}
            self.run.describe(self._note(model, self.run.metrics), before=self._note(model, plain))

    def _note(self, model: str, metrics: Mapping[str, float]) -> str:
        """Return a description with the results of the training and how to load its model."""
        result, data = self._record.run["result"], self._record.run["data"]
        reached = [
            f"{split} accuracy **{percent(metrics[key])}**"
            for split, key in (("test", "test_accuracy"), ("validation", "best_val_accuracy"))
            if key in metrics
        ]
        epochs = f"the weights are of epoch {result['best_epoch']} of {result['epochs']}"
        shape = ", ".join(map(str, data["image_shape"]))
        return (
            f"{', '.join([*reached, epochs])}.".capitalize() + "\n\n"
            "    import mlflow\n"
            f'    model = mlflow.keras.load_model("models:/{model}")\n'
            f"    model.predict(images)  # uint8 (n, {shape}) to probabilities (n, {len(data['classes'])})"
        )

    def _set_status(self, state: State | None, evaluated: bool) -> None:
        # A finished training stays finished, even if an evaluation or another occasion fails.
        is_final = self.run.status == "FINISHED" and MODEL_TAG in self.run.tags
        # Without reports, artifacts are no reason to change the status of a run that failed.
        if state is None and not (is_final or evaluated or self.run.status == "RUNNING"):
            return
        state = state or State("FINISHED", now(), now())
        if state.error:
            self.run.set_tags({ERROR_TAG: state.error})
        elif state.status == "FINISHED":
            self.run.delete_tag(ERROR_TAG)
        if not is_final:
            self.run.set_status(state.status, state.end)

    def _create(self) -> "Run":
        from mlflow.tracking.context.registry import resolve_tags

        origin, splits = self._record.origin, self._record.run["data"]["splits"]
        tags = resolve_tags(
            {
                ID_TAG: self._record.id,
                NAME_TAG: self._record.name,
                LABEL_TAG: self._record.label,
                "mlflow.runColor": self._store.new_colour(self._record.id),
                "mlflow.source.name": "pipeline",
                "mlflow.source.git.commit": origin["git.commit"],
                **origin,
                **data_tags(splits),
            }
        )
        state = self._record.state
        if state and state.sweep:
            # Show the run below the sweep's run from the start; at its end, this is done for all its trials.
            tags[f"{SWEEP_TAG}.{state.sweep}"] = shortened(state.differs)
            tags[TRAINED_IN_TAG] = state.sweep
            parent = parent_file(self._record.files.sweeps / state.sweep)
            if parent.exists():
                tags[PARENT_TAG] = parent.read_text(encoding="utf-8").strip()
        start = state.start if state else now()
        return self._client.create_run(self._store.experiment, start, tags, self._record.label)

    def _describe(self) -> None:
        """Log the configuration, the code and the data, unless the run has them."""
        config = self._record.config
        # The settings of an evaluation are params of the run that shows it.
        params = {key: value for key, value in leaves(config) if not key.startswith("evaluate.")}
        if params.keys() <= self.run.params.keys() and self.run.is_intact:
            return
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        files = {"config/params.yaml": text.encode()}
        if self._record.occasions and (patch := self._record.occasions[0].code.patch):
            files["code/uncommitted.diff"] = patch.encode("utf-8", "surrogateescape")
        for path, content in files.items():
            self.run.log_bytes(content, *path.split("/"))
        digests = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
        self.run.set_tags(files_tag("inputs", digests))
        self.run.log_data(self._record.run["data"]["name"], self._record.run["data"]["splits"])
        # Last, because the params mean that all of the above is there.
        self.run.log_params(params)

    def _rename(self) -> None:
        """Rename an existing run if the configuration has a new name; keep a name given in MLflow."""
        name = self._record.tracking.get("run_name")
        if name and self.run.tags.get(LABEL_TAG) != name:
            self._client.update_run(self.run.id, name=name)
            # Last, because the tag means that the name is set.
            self.run.set_tags({LABEL_TAG: name})

    def _refuse_other_weights(self) -> None:
        weights = self._record.run["result"]["weights_sha256"]
        if self.run.tags.get(MODEL_TAG, weights) != weights:
            raise SettledError(
                f"The model in {self._record.files.model.parent} and the run {self._record.label} in MLflow "
                f"({self.run.tags[MODEL_TAG][:12]}) have different weights: one of them was trained on "
                "another machine or with other packages. The run stays as it is; `dvc repro --force` trains "
                "the model again."
            )

    def _read_again(self) -> None:
        """Read what another clone has sent that runs the same training at the same time."""
        first = self._store.find({ID_TAG: self._record.id}, without=EVALUATION_TAG)
        if first is None:
            return
        if first.info.run_id != self.run.id and MODEL_TAG not in self.run.tags:
            # Both clones created the run before either could find the other's: the older one stays.
            self._client.delete_run(self.run.id)
        self.run = MlflowRun(self._client, first)

    def _sent_step(self) -> int:
        sent = self._client.get_metric_history(self.run.id, "learning_rate")
        return max((metric.step for metric in sent), default=0)

    def _log_epochs(self, trained: bool) -> None:
        from mlflow.entities import Metric

        state = self._record.state
        moment = state.end if state and state.end else now()
        history = read_history(self._record.files.history)
        if self._is_shared and self._last_step < len(history.epochs):
            # As in `_read_again`: these epochs may be there.
            self._last_step = self._sent_step()
        for batch in batches(history.epochs[self._last_step :], _EPOCHS_PER_REQUEST):
            metrics = [
                Metric(key, value, moment, epoch.epoch)
                for epoch in batch
                for key, value in vars(epoch).items()
                if key != "epoch" and value is not None
            ]
            self._client.log_batch(self.run.id, metrics)
            self._last_step = batch[-1].epoch
        if trained:
            # MLflow's tables show the last epoch, but the model has the weights of the best one.
            best = {f"best_{key}": getattr(history.best, key) for key in ("val_accuracy", "val_loss")}
            best["best_val_macro_f1"] = self._record.run["result"].get("val_macro_f1")
            self.run.log_results({key: value for key, value in best.items() if value is not None}, moment)
