"""Access to one run in MLflow: each method sends only what the run lacks, so it is safe to repeat."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pipeline.tracking.database import has_files

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

Item = TypeVar("Item")
Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

ID_TAG = "pipeline.id"
NAME_TAG = "pipeline.name"  # the name in models/run.json
LABEL_TAG = "pipeline.label"  # the run's first name in MLflow
ERROR_TAG = "pipeline.error"
OCCASION_TAG = "pipeline.occasion"  # begins the tag of an occasion, which ends with its id
# On a run that shows only an evaluation: the id of the evaluation, a digest of its settings and images.
EVALUATION_TAG = "pipeline.evaluation"
TEST_TAG = "data.test"  # a digest of the images and labels that the run was evaluated on
NOTE_TAG = "mlflow.note.content"
PARENT_TAG = "mlflow.parentRunId"
_CONTEXTS = {"train": "training", "validation": "validation", "test": "test"}
_MAX_DIGEST = 36  # characters of a data set's digest
MAX_TEXT = 6000  # characters; MLflow rejects or truncates longer params and tags
_PARAMS_PER_REQUEST = 100  # MLflow's limit


class MlflowRun:
    """A run: what it held when it was read, and what has been sent since."""

    def __init__(self, client: "MlflowClient", run: "Run") -> None:
        """Wrap `run`, which was just read from the store of `client`."""
        self.client = client
        self.id: str = run.info.run_id
        self.name: str = run.info.run_name
        self.status: str = run.info.status
        self.is_deleted: bool = run.info.lifecycle_stage == "deleted"
        self.tags: dict[str, str] = dict(run.data.tags)
        self.params: dict[str, str] = dict(run.data.params)
        self.metrics: dict[str, float] = dict(run.data.metrics)
        # False if the run is new, or if somebody deleted mlruns/.
        self.is_intact = has_files(run.info.artifact_uri)
        inputs = run.inputs.dataset_inputs if run.inputs else []
        self._contexts = {tag.value for each in inputs for tag in each.tags}
        self.models = [output.model_id for output in run.outputs.model_outputs] if run.outputs else []
        self._ended = bool(run.info.end_time)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set the tags that differ from those of the run."""
        from mlflow.entities import RunTag

        texts = {key: shortened(value) for key, value in tags.items()}
        if not texts.items() <= self.tags.items():
            self.client.log_batch(self.id, tags=[RunTag(key, text) for key, text in texts.items()])
            self.tags |= texts

    def describe(self, note: str, before: str | None = None) -> None:
        """Set the description, in Markdown, unless somebody has changed it from `before`."""
        if self.tags.get(NOTE_TAG) in (None, before):
            self.set_tags({NOTE_TAG: note})

    def delete_tag(self, key: str) -> None:
        """Delete a tag if the run has it."""
        if key in self.tags:
            self.client.delete_tag(self.id, key)
            del self.tags[key]

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log the params that the run lacks; MLflow doesn't allow existing params to change."""
        from mlflow.entities import Param

        new = {key: shortened(value) for key, value in params.items() if key not in self.params}
        for batch in batches(list(new.items()), _PARAMS_PER_REQUEST):
            self.client.log_batch(self.id, params=[Param(key, text) for key, text in batch])
        self.params |= new

    def log_bytes(self, content: bytes, folder: str, name: str) -> None:
        """Log `content` as the artifact `folder/name`."""
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / name
            path.write_bytes(content)
            self.client.log_artifact(self.id, str(path), folder)

    def log_data(self, name: str, splits: Mapping[str, Mapping[str, Any]]) -> None:
        """Log those splits of a data set that the run lacks, each with its digest."""
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.data.sources import LocalArtifactDatasetSource
        from mlflow.entities import DatasetInput, InputTag

        inputs = [
            DatasetInput(
                MetaDataset(
                    LocalArtifactDatasetSource(f"data/processed/{split}"), *named_data(name, split, part)
                )._to_mlflow_entity(),
                [InputTag("mlflow.data.context", _CONTEXTS[split])],
            )
            for split, part in splits.items()
            if _CONTEXTS[split] not in self._contexts
        ]
        if inputs:
            self.client.log_inputs(self.id, inputs)
            self._contexts |= {tag.value for each in inputs for tag in each.tags}

    def log_results(
        self, values: Mapping[str, float], moment: int, model: str | None = None, data: Sequence[str] = ()
    ) -> None:
        """Log metrics that don't belong to an epoch; MLflow draws them as a bar chart of all runs.

        The moment, in milliseconds since 1970, is the same if the call is repeated. The logged model with the
        id `model` gets the metrics, too, with the name and the digest of the data set that they were measured
        on.
        """
        from mlflow.entities import Metric

        new = set(values)
        of_model = self.client.get_logged_model(model).metrics or () if model else ()
        if not model or values.keys() <= {metric.key for metric in of_model}:
            new = {key for key, value in values.items() if self.metrics.get(key) != value}
        details = {"model_id": model, "run_id": self.id} if model else {}
        if model and data:
            details |= {"dataset_name": data[0], "dataset_digest": data[1]}
        if new:
            self.client.log_batch(
                self.id, [Metric(key, values[key], moment, 0, **details) for key in values if key in new]
            )
            self.metrics |= values

    def set_status(self, status: str, end: int | None) -> None:
        """Set the status and the end, in milliseconds since 1970; a finished run keeps its end."""
        new_end = end and (not self._ended or self.status != "FINISHED")
        if new_end:
            self.client.set_terminated(self.id, status, end)
        elif status != self.status:
            self.client.update_run(self.id, status)
        self.status, self._ended = status, self._ended or bool(end)


def logged_model_of(client: "MlflowClient", experiment: str, run: str) -> "LoggedModel | None":
    """Return the model that a run logged, or None; `experiment` and `run` are MLflow's ids."""
    found = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run}'", max_results=1)
    return found[0] if found else None


def unless_missing(request: Callable[[], Item]) -> Item | None:
    """Return the result of a request to MLflow, or None if MLflow doesn't have what was requested."""
    from mlflow.exceptions import MlflowException

    try:
        return request()
    except MlflowException as error:
        # MLflow reports an alias that no version has as an invalid parameter.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def data_tags(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the tags of a run with the digest and the number of images of each split."""
    tags: dict[str, str] = {}
    for split, part in splits.items():
        tags |= {f"data.{split}": part["sha256"], f"data.{split}.images": str(part["images"])}
    return tags


def named_data(name: str, split: str, part: Mapping[str, Any]) -> tuple[str, str]:
    """Return the name and the digest that a split has in MLflow."""
    return f"{name}-{split}", part["sha256"][:_MAX_DIGEST]


def shortened(value: object) -> str:
    """Return a value as the text of a param or a tag, truncated if it is too long for MLflow."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield the items in batches of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
