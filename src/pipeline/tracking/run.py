"""A run in MLflow, made to show what its record holds.

Each update sends what MLflow does not have yet, so the same code logs a run while it trains, completes
one that was cut off and rebuilds one that was lost.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from pipeline.artifacts.history import read_history
from pipeline.artifacts.workspace import Workspace, sha256
from pipeline.config.section import leaves
from pipeline.environment import quiet_tensorflow
from pipeline.errors import PipelineError
from pipeline.tracking.occasion import now
from pipeline.tracking.record import Record, refuse_foreign_model
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run

Item = TypeVar("Item")

ID_TAG = "pipeline.id"
NAME_TAG = "pipeline.name"
OCCASION_TAG = "pipeline.occasion"
ERROR_TAG = "pipeline.error"
PARENT_TAG = "mlflow.parentRunId"
SWEEP_TAG = "pipeline.sweep"
# Set when all of the model, or of the reports, is there.
MODEL_TAG = "pipeline.weights_sha256"
REPORTS_TAG = "pipeline.reports_sha256"
_MAX_DIGEST = 36  # characters, of a data set's digest
_MAX_TEXT = 6000  # characters; MLflow refuses or cuts longer params and tags
# Told apart side by side: the categorical colours of Tableau.
_COLOURS = (
    *("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f"),
    *("#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#bab0ac"),
)
_EPOCHS_AT_ONCE = 150  # MLflow takes 1,000 metrics in a request.


def parent_file(folder: Path) -> Path:
    """Where the folder of a sweep names the MLflow run of the sweep."""
    return folder / "parent"


def complete_tags(record: Record) -> dict[str, str]:
    """The tags that only a run has which shows all of `record`."""
    tags = {ID_TAG: record.id}
    if "result" in record.run:
        tags[MODEL_TAG] = record.run["result"]["weights_sha256"]
    if record.files.metrics.exists():
        tags[REPORTS_TAG] = _reports_digest(record.files)
    return tags


class RunDeletedError(PipelineError):
    """Somebody deleted the run in MLflow; it is not brought back against their will."""


class OtherWeightsError(PipelineError):
    """The run in MLflow is of the same training, which gave other weights there."""


class Projection:
    """The MLflow run of one record."""

    def __init__(self, store: Store, record: Record) -> None:
        """Find the run in the store, or create it.

        Raises:
            RunDeletedError: it was deleted in MLflow.
            MlflowException: the store can't be reached.
        """
        self._store, self._record, self._client = store, record, store.client
        run = store.find(ID_TAG, record.id) or self._create()
        if run.info.lifecycle_stage == "deleted":
            raise RunDeletedError(
                f"The run {record.name} was deleted in MLflow: `mlflow runs restore --run-id "
                f"{run.info.run_id}` brings it back."
            )
        self.run_id: str = run.info.run_id
        self.status: str = run.info.status
        self._ended = bool(run.info.end_time)
        self._tags: dict[str, str] = dict(run.data.tags)
        inputs = run.inputs.dataset_inputs if run.inputs else []
        self._data_logged = {tag.value for found in inputs for tag in found.tags}
        self._describe(run)
        sent = self._client.get_metric_history(self.run_id, "train_loss") if run.data.metrics else []
        self._last_step = max((metric.step for metric in sent), default=0)

    def update(self) -> None:
        """Send what the record holds and MLflow does not."""
        # In this order, since the stage goes on writing meanwhile.
        state, trained = self._record.state, "result" in self._record.run
        files = self._record.files
        self._log_occasions()
        if trained and self._tags.get(MODEL_TAG, self._weights) != self._weights:
            raise OtherWeightsError(
                f"The model in {files.model.parent} has other weights than the run {self._record.name} in "
                f"MLflow ({self._tags[MODEL_TAG][:12]}), which keeps its own: they were trained on another "
                "machine or with other packages. `dvc repro --force` trains anew."
            )
        if files.history.exists():
            self._log_epochs()
        if trained and MODEL_TAG not in self._tags:
            self._log_model()
        evaluated = files.metrics.exists()
        if evaluated:
            self._log_evaluation()
        if state is None:
            # Artifacts alone don't tell why a run failed that is known to have failed.
            if evaluated or self.status == "RUNNING":
                self._set_status("FINISHED", now())
        else:
            self._set_status(state.status, state.end, state.error)

    def _set_status(self, status: str, end: int | None, error: str = "") -> None:
        if error:
            self._set_tags({ERROR_TAG: error})
        elif status == "FINISHED" and ERROR_TAG in self._tags:
            self._client.delete_tag(self.run_id, ERROR_TAG)
            del self._tags[ERROR_TAG]
        # What was trained once stays so, whatever comes of a further occasion.
        if status == self.status or (self.status == "FINISHED" and MODEL_TAG in self._tags):
            return
        if end and not self._ended:
            self._client.set_terminated(self.run_id, status, end)
            self._ended = True
        else:
            self._client.update_run(self.run_id, status)
        self.status = status

    def _create(self) -> "Run":
        from mlflow.tracking.context.registry import resolve_tags

        origin = self._record.origin
        tags = resolve_tags(
            {
                ID_TAG: self._record.id,
                NAME_TAG: self._record.name,
                "mlflow.runColor": self._colour(),
                "mlflow.source.name": "pipeline",
                "mlflow.source.git.commit": origin["git.commit"],
                **origin,
                **{f"data.{split}": part["sha256"] for split, part in self._splits.items()},
                **{f"data.{split}.images": str(part["images"]) for split, part in self._splits.items()},
            }
        )
        state = self._record.state
        if state and state.sweep:
            # Below the sweep's run while that goes on; at its end all of its trials are put there.
            tags[f"{SWEEP_TAG}.{state.sweep}"] = shortened(state.differs)
            parent = parent_file(self._record.files.sweeps / state.sweep)
            if parent.exists():
                tags[PARENT_TAG] = parent.read_text(encoding="utf-8").strip()
        start = state.start if state else now()
        run = self._client.create_run(self._store.experiment, start, tags, self._record.label)
        # Another machine on the same server may have been as fast: then all use the first of both.
        first = self._store.find(ID_TAG, self._record.id)
        if first and first.info.run_id != run.info.run_id:
            self._client.delete_run(run.info.run_id)
            return first
        return run

    def _colour(self) -> str:
        """The one after the latest training's; MLflow's own choice gives most runs the same."""
        latest = self._client.search_runs(
            [self._store.experiment], f"tags.`{ID_TAG}` LIKE '%'", max_results=1
        )
        used = latest[0].data.tags.get("mlflow.runColor") if latest else None
        return _COLOURS[(_COLOURS.index(used) + 1) % len(_COLOURS) if used in _COLOURS else 0]

    def _describe(self, run: "Run") -> None:
        """Params, data and configuration, as far as the run lacks them."""
        from mlflow.entities import Param

        config = self._record.config
        params = [Param(key, shortened(value)) for key, value in leaves(config) if key not in run.data.params]
        if not params:
            return
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        self._client.log_text(self.run_id, text, "config/params.yaml")
        if self._record.occasions and (patch := self._record.occasions[0].code.patch):
            self._log_bytes(patch.encode("utf-8", "surrogateescape"), "code", "uncommitted.diff")
        self._log_data()
        # Last, since they say that all the above is there.
        for some in pieces(params, 100):
            self._client.log_batch(self.run_id, params=some)

    def _log_data(self) -> None:
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.data.sources import LocalArtifactDatasetSource
        from mlflow.entities import DatasetInput, InputTag

        contexts = {"train": "training", "validation": "validation", "test": "test"}
        name = self._record.run["data"]["name"]
        inputs = [
            DatasetInput(
                MetaDataset(
                    LocalArtifactDatasetSource(f"data/processed/{split}"),
                    f"{name}-{split}",
                    part["sha256"][:_MAX_DIGEST],
                )._to_mlflow_entity(),
                [InputTag("mlflow.data.context", contexts[split])],
            )
            for split, part in self._splits.items()
            if contexts[split] not in self._data_logged
        ]
        if inputs:
            self._client.log_inputs(self.run_id, inputs)
            self._data_logged |= {tag.value for found in inputs for tag in found.tags}

    def _log_epochs(self) -> None:
        from mlflow.entities import Metric

        state = self._record.state
        moment = state.end if state and state.end else now()
        epochs = read_history(self._record.files.history).epochs[self._last_step :]
        for some in pieces(epochs, _EPOCHS_AT_ONCE):
            metrics = [
                Metric(key, value, moment, epoch.epoch)
                for epoch in some
                for key, value in vars(epoch).items()
                if key != "epoch" and value is not None
            ]
            self._client.log_batch(self.run_id, metrics)
            self._last_step = some[-1].epoch

    def _log_model(self) -> None:
        with quiet_tensorflow():
            import mlflow.keras
        import numpy as np
        from mlflow.models import Model, ModelSignature
        from mlflow.types import Schema, TensorSpec

        run, model = self._record.run, self._record.files.model
        refuse_foreign_model(run, self._record.files)
        result, data = run["result"], run["data"]
        signature = ModelSignature(
            Schema([TensorSpec(np.dtype("uint8"), (-1, *data["image_shape"]), "images")]),
            Schema([TensorSpec(np.dtype("float32"), (-1, len(data["classes"])))]),
        )
        packages = ("mlflow", "tensorflow", "keras", "numpy")
        versions = {name: self._record.origin[f"package.{name}"] for name in packages}
        Model.log(
            artifact_path=None,
            flavor=mlflow.keras,
            run_id=self.run_id,
            model_id=self._logged_model(),
            step=result["best_epoch"],
            model=_SavedModel(model),
            signature=signature,
            pip_requirements=[f"{name}=={number}" for name, number in versions.items()],
        )
        self._client.log_artifact(self.run_id, str(self._record.files.history))
        self._set_tags({f"pipeline.{key}": value for key, value in result.items()})

    def _logged_model(self) -> str:
        """The run's entry among the models of its experiment; one whose upload broke off is used again."""
        found = self._client.search_logged_models(
            [self._store.experiment], filter_string=f"source_run_id = '{self.run_id}'", max_results=1
        )
        if found:
            return str(found[0].model_id)
        # Model.log would create it in whatever experiment is the active one.
        params = {key: shortened(value) for key, value in leaves(self._record.config)}
        model = self._client.create_logged_model(
            self._store.experiment, name="model", source_run_id=self.run_id, params=params
        )
        return str(model.model_id)

    def _log_evaluation(self) -> None:
        from mlflow.entities import Metric

        files = self._record.files
        digest = _reports_digest(files)
        if self._tags.get(REPORTS_TAG) == digest:
            return
        metrics = json.loads(files.metrics.read_text(encoding="utf-8"))
        # What is of the training was sent by epoch.
        values = {key: metrics[key] for key in metrics if key.startswith(("test_", "generalisation_"))}
        moment = now()
        # MLflow draws what has but the step 0 as bars, side by side for all runs.
        self._client.log_batch(self.run_id, [Metric(key, value, moment, 0) for key, value in values.items()])
        self._client.log_artifacts(self.run_id, str(files.figures), "figures")
        for path in (files.metrics, files.predictions, files.per_class, files.label_issues):
            self._client.log_artifact(self.run_id, str(path))
        self._log_data()
        test = self._splits.get("test")
        data = {"data.test": test["sha256"], "data.test.images": test["images"]} if test else {}
        # Last, since it says that all the above is there.
        self._set_tags({**data, **_evaluated_with(files), REPORTS_TAG: digest})

    @property
    def _weights(self) -> str:
        return str(self._record.run["result"]["weights_sha256"])

    @property
    def _splits(self) -> dict[str, dict[str, Any]]:
        """Those that are known: the test split is an evaluation's."""
        splits = dict(self._record.run["data"]["splits"])
        return splits | ({"test": self._record.evaluation["test"]} if self._record.evaluation else {})

    def _log_occasions(self) -> None:
        """List every occasion that is known here and ended, beside those of other machines."""
        for occasion in self._record.occasions:
            if occasion.weights_sha256 and f"{OCCASION_TAG}.{occasion.id}" not in self._tags:
                self._log_bytes(occasion.dump().encode(), "occasions", f"{occasion.id}.json")
                self._set_tags({f"{OCCASION_TAG}.{occasion.id}": occasion.summary})

    def _log_bytes(self, content: bytes, folder: str, name: str) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / name
            path.write_bytes(content)
            self._client.log_artifact(self.run_id, str(path), folder)

    def _set_tags(self, tags: dict[str, Any]) -> None:
        from mlflow.entities import RunTag

        texts = {key: shortened(value) for key, value in tags.items()}
        if texts.items() <= self._tags.items():
            return
        self._client.log_batch(self.run_id, tags=[RunTag(key, text) for key, text in texts.items()])
        self._tags |= texts


def _evaluated_with(files: Workspace) -> dict[str, Any]:
    """The evaluate.* of the latest evaluation; the run's params are those of the first and can't change."""
    try:
        config = yaml.safe_load(files.params.read_text(encoding="utf-8"))
        return dict(leaves({"evaluate": config["evaluate"]}))
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return {}


def _reports_digest(files: Workspace) -> str:
    """Of what MLflow shows of an evaluation: figures too, which may change while the metrics don't."""
    digests = [sha256(path) for path in (files.metrics, files.predictions, *sorted(files.figures.glob("*")))]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


class _SavedModel:
    """Hands MLflow the model file as it is: byte for byte what DVC caches, without loading it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, path: str, **_: Any) -> None:
        shutil.copyfile(self._path, path)


def shortened(value: object) -> str:
    """A value as the text of a param or a tag."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def pieces(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """The items, at most `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
