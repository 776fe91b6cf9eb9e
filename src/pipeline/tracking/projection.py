"""A run in MLflow, made to show what its record holds.

Each update sends what MLflow does not have yet, so the same code logs a run while it trains, completes
one that was cut off and rebuilds one that was lost.
"""

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import dump, leaves, validate
from pipeline.console import quiet_tensorflow
from pipeline.errors import PipelineError
from pipeline.tracking.record import Record
from pipeline.tracking.store import Store
from pipeline.training.history import read_history
from pipeline.workspace import sha256

if TYPE_CHECKING:
    from mlflow.entities import Run

ID_TAG = "pipeline.id"
ERROR_TAG = "pipeline.error"
METRICS_TAG = "pipeline.metrics_sha256"
TEST_METRICS = ("accuracy", "accuracy_low", "accuracy_high", "nll", "ece", "macro_f1", "errors")
_MAX_PARAM = 6000  # characters; MLflow cuts longer ones off


def complete_tags(record: Record) -> dict[str, str]:
    """The tags that only a run has which shows all of `record`."""
    tags = {ID_TAG: record.id}
    if "result" in record.run:
        tags["pipeline.weights_sha256"] = record.run["result"]["weights_sha256"]
    if record.files.metrics.exists():
        tags[METRICS_TAG] = sha256(record.files.metrics)
    return tags


class RunDeletedError(PipelineError):
    """Somebody deleted the run in MLflow; it is not brought back against their will."""


class Projection:
    """The MLflow run of one record."""

    def __init__(self, store: Store, record: Record) -> None:
        """Find the run in the store, or create it.

        Raises:
            RunDeletedError: it was deleted in MLflow.
            MlflowException: the store can't be reached.
        """
        self._store, self._record, self._client = store, record, store.client
        run = self._find() or self._create()
        if run.info.lifecycle_stage == "deleted":
            raise RunDeletedError(
                f"The run {record.name} was deleted in MLflow: `mlflow runs restore --run-id "
                f"{run.info.run_id}` brings it back."
            )
        self.run_id: str = run.info.run_id
        self._status: str = run.info.status
        self._tags: dict[str, str] = dict(run.data.tags)
        self._has_model = bool(run.outputs and run.outputs.model_outputs)
        self._describe(run)
        sent = self._client.get_metric_history(self.run_id, "loss") if run.data.metrics else []
        self._last_step = max((metric.step for metric in sent), default=0)

    def update(self) -> None:
        """Send what the record holds and MLflow does not."""
        files, state = self._record.files, self._record.state
        if files.history.exists():
            self._log_epochs()
        if "result" in self._record.run and not self._has_model:
            self._log_model()
        if files.metrics.exists():
            self._log_evaluation()
        if state.error and self._tags.get(ERROR_TAG) != state.error:
            self._set_tag(ERROR_TAG, state.error)
        if state.status == "FINISHED" and ERROR_TAG in self._tags:
            self._client.delete_tag(self.run_id, ERROR_TAG)
            del self._tags[ERROR_TAG]
        if state.status != self._status:
            self._client.set_terminated(self.run_id, state.status, state.end or int(time.time() * 1000))
            self._status = state.status

    def _find(self) -> "Run | None":
        from mlflow.entities import ViewType

        found = self._client.search_runs(
            [self._store.experiment],
            f"tags.`{ID_TAG}` = '{self._record.id}'",
            run_view_type=ViewType.ALL,
            max_results=1,
        )
        return found[0] if found else None

    def _create(self) -> "Run":
        from mlflow.tracking.context.registry import resolve_tags

        run = self._record.run
        tags = resolve_tags(
            {
                ID_TAG: self._record.id,
                "mlflow.source.name": "pipeline",
                "mlflow.source.git.commit": run["tags"]["git.commit"],
                **run["tags"],
                **{f"data.{Path(path).stem}": digest for path, digest in run["data"].items()},
            }
        )
        return self._client.create_run(
            self._store.experiment, self._record.state.start, tags, self._record.name
        )

    def _describe(self, run: "Run") -> None:
        """Params, data and configuration, as far as the run lacks them."""
        from mlflow.entities import Param

        config = self._record.run["config"]
        params = [Param(key, _text(value)) for key, value in leaves(config) if key not in run.data.params]
        for start in range(0, len(params), 100):
            self._client.log_batch(self.run_id, params=params[start : start + 100])
        if not (run.inputs and run.inputs.dataset_inputs):
            self._log_data()
        if not run.data.params:
            self._client.log_text(self.run_id, dump(validate(config, "run.json")), "config/params.yaml")
            if changes := self._record.run["uncommitted_changes"]:
                self._client.log_text(self.run_id, changes + "\n", "code/uncommitted.diff")

    def _log_data(self) -> None:
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.data.sources import LocalArtifactDatasetSource
        from mlflow.entities import DatasetInput, InputTag

        contexts = {"train": "training", "validation": "validation", "test": "test"}
        name = self._record.run["config"]["data"]["name"]
        inputs = [
            DatasetInput(
                MetaDataset(
                    LocalArtifactDatasetSource(path), f"{name}-{Path(path).name}", digest
                )._to_mlflow_entity(),
                [InputTag("mlflow.data.context", contexts[Path(path).name])],
            )
            for path, digest in self._record.run["data"].items()
            if Path(path).name in contexts
        ]
        if inputs:
            self._client.log_inputs(self.run_id, inputs)

    def _log_epochs(self) -> None:
        from mlflow.entities import Metric

        for epoch in read_history(self._record.files.history).epochs:
            if epoch.epoch <= self._last_step:
                continue
            values = {
                key: value for key, value in vars(epoch).items() if key != "epoch" and value is not None
            }
            now = int(time.time() * 1000)
            self._client.log_batch(
                self.run_id, [Metric(key, value, now, epoch.epoch) for key, value in values.items()]
            )
            self._last_step = epoch.epoch

    def _log_model(self) -> None:
        with quiet_tensorflow():
            import mlflow.keras
        import numpy as np
        from mlflow.models import Model, ModelSignature
        from mlflow.types import Schema, TensorSpec

        run = self._record.run
        result, classes = run["result"], len(run["config"]["data"]["classes"])
        signature = ModelSignature(
            Schema([TensorSpec(np.dtype("uint8"), (-1, *result["image_shape"]), "images")]),
            Schema([TensorSpec(np.dtype("float32"), (-1, classes))]),
        )
        versions = {
            name: run["tags"][f"package.{name}"] for name in ("mlflow", "tensorflow", "keras", "numpy")
        }
        Model.log(
            artifact_path=None,
            name="model",
            flavor=mlflow.keras,
            run_id=self.run_id,
            step=result["kept_epoch"],
            model=_SavedModel(self._record.files.model),
            signature=signature,
            pip_requirements=[f"{name}=={number}" for name, number in versions.items()],
        )
        self._client.log_artifact(self.run_id, str(self._record.files.history))
        for key, value in result.items():
            self._set_tag(f"pipeline.{key}", _text(value))
        self._has_model = True

    def _log_evaluation(self) -> None:
        from mlflow.entities import Metric

        files = self._record.files
        digest = sha256(files.metrics)
        if self._tags.get(METRICS_TAG) == digest:
            return
        metrics = json.loads(files.metrics.read_text(encoding="utf-8"))
        values = {f"test_{key}": metrics[key] for key in TEST_METRICS}
        values["generalisation_gap"] = metrics["generalisation_gap"]
        now, step = int(time.time() * 1000), self._record.run["result"]["kept_epoch"]
        self._client.log_batch(self.run_id, [Metric(key, value, now, step) for key, value in values.items()])
        self._client.log_artifacts(self.run_id, str(files.figures), "figures")
        for path in (files.metrics, files.predictions):
            self._client.log_artifact(self.run_id, str(path))
        # Last, since it says that all the above is there.
        self._set_tag(METRICS_TAG, digest)

    def _set_tag(self, key: str, value: str) -> None:
        self._client.set_tag(self.run_id, key, value)
        self._tags[key] = value


class _SavedModel:
    """Hands MLflow the model file as it is: byte for byte what DVC caches, without loading it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, path: str, **_: Any) -> None:
        shutil.copyfile(self._path, path)


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_PARAM else text[: _MAX_PARAM - 1] + "…"
