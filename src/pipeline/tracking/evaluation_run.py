"""Show an evaluation in MLflow: on its training's run or, if settings or images differ, on a child run."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.workspace import sha256
from pipeline.config.section import leaves
from pipeline.tracking.mlflow_run import (
    EVALUATION_TAG,
    ID_TAG,
    PARENT_TAG,
    TEST_TAG,
    MlflowRun,
    data_tags,
    named_data,
    shortened,
)
from pipeline.tracking.record import Record
from pipeline.tracking.stored import digests_below, files_tag

if TYPE_CHECKING:
    from mlflow.entities import Run

    from pipeline.tracking.store import Store

# Set once the reports are complete in MLflow.
REPORTS_TAG = "pipeline.reports_sha256"


def results_in(path: Path) -> dict[str, float]:
    """Return the metrics in metrics.json that are logged for an evaluation; others are logged by epoch."""
    metrics = json.loads(path.read_text(encoding="utf-8"))
    return {key: metrics[key] for key in metrics if key.startswith(("test_", "generalisation_"))}


class Evaluation:
    """The reports in a record, and the settings that they were made with."""

    def __init__(self, record: Record) -> None:
        self._record, self._files = record, record.files
        # Empty if the workspace does not tell what the evaluation was made with.
        known = record.evaluation or {"settings": {}}
        self._settings = {key: shortened(value) for key, value in leaves({"evaluate": known["settings"]})}
        self._data: dict[str, dict[str, Any]] = {"test": known["test"]} if "test" in known else {}
        self._data_tags = data_tags(self._data)

    @cached_property
    def digest(self) -> str:
        """A digest of everything that MLflow shows, including figures, which may change on their own."""
        paths = (*self._tables, *sorted(self._files.figures.glob("*")))
        return hashlib.sha256(" ".join(map(sha256, paths)).encode()).hexdigest()

    @property
    def _tables(self) -> tuple[Path, ...]:
        files = self._files
        return (
            files.metrics,
            files.predictions,
            files.per_class,
            files.label_issues,
            files.probabilities,
            files.model_card,
        )

    def show(self, store: "Store", training: MlflowRun, model: str | None) -> None:
        """Send the evaluation to MLflow, unless MLflow already shows it.

        If the run of the training shows a different evaluation, this one gets a run of its own. `model` is
        the id of the logged model that was evaluated.

        Raises:
            MlflowException: If the store can't be reached.
        """
        has = {key: value for key, value in training.params.items() if key.startswith("evaluate.")}
        same = has.items() <= self._settings.items() and all(
            training.tags.get(tag, value) == value for tag, value in self._data_tags.items()
        )
        evaluation = self._record.evaluation
        if same or not evaluation:
            self._log(training, model)
            return
        run = self._separate_run(store, training, evaluation["id"])
        # A run that somebody deleted in MLflow stays deleted.
        if not run.is_deleted:
            run.set_status("FINISHED", self._moment)
            self._log(run, None)

    def _log(self, run: MlflowRun, model: str | None) -> None:
        if run.tags.get(REPORTS_TAG) == self.digest and run.is_intact:
            return
        # First, because these identify the evaluation that the run shows.
        run.log_params(self._settings)
        run.set_tags(self._data_tags)
        name = self._record.run["data"]["name"]
        run.log_data(name, self._data)
        data = [named_data(name, split, part) for split, part in self._data.items()]
        run.log_results(results_in(self._files.metrics), self._moment, model, *data)
        run.client.log_artifacts(run.id, str(self._files.figures), "figures")
        for path in self._tables:
            run.client.log_artifact(run.id, str(path))
        digests = {f"figures/{name}": digest for name, digest in digests_below(self._files.figures).items()}
        digests |= {path.name: sha256(path) for path in self._tables}
        for path in self._files.data_report:
            run.client.log_artifact(run.id, str(path), "data")
            digests[f"data/{path.name}"] = sha256(path)
        run.set_tags(files_tag("evaluation", digests))
        # Last, because the tag means that all of the above is there.
        run.set_tags({REPORTS_TAG: self.digest})

    @property
    def _moment(self) -> int:
        """When the evaluation was made, in milliseconds since 1970."""
        return self._files.metrics.stat().st_mtime_ns // 1_000_000

    def _separate_run(self, store: "Store", training: MlflowRun, digest: str) -> MlflowRun:
        found = store.find_or_create(
            {EVALUATION_TAG: digest, ID_TAG: training.tags[ID_TAG]},
            lambda: self._create(store, training, digest),
        )
        return MlflowRun(store.client, found)

    def _create(self, store: "Store", training: MlflowRun, digest: str) -> "Run":
        from mlflow.tracking.context.registry import resolve_tags

        changed = [
            f"{key.rpartition('.')[2]}={value}"
            for key, value in self._settings.items()
            if training.params.get(key) != value
        ]
        inherited = {
            key: value
            for key, value in training.tags.items()
            if key.startswith(("data.", "pipeline.weights")) or key == ID_TAG
        }
        tags = resolve_tags(
            {
                **inherited,
                EVALUATION_TAG: digest,
                PARENT_TAG: training.id,
                "mlflow.source.name": "pipeline",
                "mlflow.runColor": store.new_colour(digest),
            }
        )
        how = [f"with {', '.join(changed)}"] if changed else []
        # The test images alone may change, for example after a label was corrected.
        test = self._data_tags.get(TEST_TAG, "")
        how += [f"on test images {test[:8]}"] if training.tags.get(TEST_TAG, test) != test else []
        name = f"{training.name} evaluated {' '.join(how)}"
        return store.client.create_run(store.experiment, self._moment, tags, name)
