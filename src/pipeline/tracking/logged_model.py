"""Log the model of a run in MLflow: the files that DVC caches, with the facts needed to use them."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.artifacts.history import Epoch
from pipeline.artifacts.workspace import sha256
from pipeline.config.section import leaves
from pipeline.tracking.database import has_files
from pipeline.tracking.identity import refuse_foreign_model
from pipeline.tracking.mlflow_run import MlflowRun, logged_model_of, shortened
from pipeline.tracking.record import Record
from pipeline.tracking.store import Store
from pipeline.tracking.stored import digests_below, files_tag

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

# Set once the model is complete in MLflow.
MODEL_TAG = "pipeline.weights_sha256"
_LOADER = Path(__file__).with_name("onnx_classifier.py")


def log_model(store: Store, run: MlflowRun, record: Record) -> str:
    """Log the model of `record` in the run's experiment, unless it is already there, and return its id.

    This makes single calls to `MlflowClient`, because `mlflow.keras.log_model` can't continue after an
    interruption.

    Raises:
        PipelineError: If a model file is missing or does not belong to the run.
        MlflowException: If the store can't be reached.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    result = record.run["result"]
    model = _find_or_create(store, run, record)
    model_id = str(model.model_id)
    if MODEL_TAG in run.tags and has_files(model.artifact_location):
        return model_id
    refuse_foreign_model(record.run, record.files)
    if model_id not in run.models:
        run.client.log_outputs(run.id, [LoggedModelOutput(model_id, result["best_epoch"])])
        run.models.append(model_id)
    _log_metrics(run, model_id, result["best_epoch"])
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model"
        _save(saved, model, run, record)
        run.client.log_model_artifacts(model_id, str(saved))
        run.client.set_logged_model_tags(model_id, files_tag("model", digests_below(saved)))
    run.client.finalize_logged_model(model_id, LoggedModelStatus.READY)
    small = (record.files.history, record.files.run)
    for path in small:
        run.client.log_artifact(run.id, str(path))
    run.set_tags(files_tag("training", {path.name: sha256(path) for path in small}))
    run.set_tags({f"pipeline.{key}": value for key, value in result.items()})
    # In place of a model that somebody deleted, this one lacks the metrics of the evaluation.
    run.is_intact = False
    return model_id


def _find_or_create(store: Store, run: MlflowRun, record: Record) -> "LoggedModel":
    if found := logged_model_of(store.client, store.experiment, run.id):
        return found
    config = record.config
    return store.client.create_logged_model(
        store.experiment,
        # MLflow doesn't allow some characters.
        name=re.sub(r"[^\w-]+", "-", f"{record.run['data']['name']}-{config['model']['name']}"),
        source_run_id=run.id,
        params={key: shortened(value) for key, value in leaves(config)},
        tags={key: shortened(value) for key, value in _facts(record).items()},
    )


def _facts(record: Record) -> dict[str, Any]:
    """Return the facts that are needed to use the model."""
    data = record.run["data"]
    return {
        "data": data["name"],
        "classes": data["classes"],
        "weights_sha256": record.run["result"]["weights_sha256"],
    }


def _log_metrics(run: MlflowRun, model: str, epoch: int) -> None:
    """Log the metrics of the epoch whose weights the model has."""
    from mlflow.entities import Metric

    metrics = [
        Metric(point.key, point.value, point.timestamp, point.step, model_id=model, run_id=run.id)
        for key in Epoch.__dataclass_fields__
        for point in run.client.get_metric_history(run.id, key)
        if point.step == epoch
    ]
    if metrics:
        run.client.log_batch(run.id, metrics)


def _save(folder: Path, model: "LoggedModel", run: MlflowRun, record: Record) -> None:
    """Write the model in MLflow's format with two flavours: Keras, and a python_function on ONNX Runtime.

    MLflow's own `keras.save_model` would write a python_function that needs TensorFlow.
    """
    import numpy as np
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    data, packages = record.run["data"], record.origin
    images = TensorSpec(np.dtype("uint8"), (-1, *data["image_shape"]))
    scores = TensorSpec(np.dtype("float32"), (-1, len(data["classes"])))
    # What the python_function needs; the versions of TensorFlow and Keras are in the metadata.
    names = ("mlflow", "numpy", "onnxruntime")
    requirements = [f"{name}=={packages[f'package.{name}']}" for name in names]
    python = packages["package.python"]
    environment = {
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": requirements}],
        "name": "mlflow-env",
    }
    described = Model(
        artifact_path=model.artifact_location,
        model_uuid=model.model_id,
        run_id=run.id,
        model_id=model.model_id,
        # The input has no name, because Keras warns if it gets a mapping of names.
        signature=ModelSignature(Schema([images]), Schema([scores])),
        metadata=_facts(record) | {name: packages[f"package.{name}"] for name in ("keras", "tensorflow")},
    )
    described.add_flavor(
        "keras",
        data="data",
        keras_version=packages["package.keras"],
        keras_backend="tensorflow",
        save_exported_model=False,
    )
    pyfunc.add_to_model(
        described,
        loader_module=_LOADER.stem,
        data="data/model.onnx",
        code="code",
        conda_env="conda.yaml",
        python_env="python_env.yaml",
    )
    (folder / "data").mkdir(parents=True)
    (folder / "code").mkdir()
    shutil.copyfile(record.files.model, folder / "data" / "model.keras")
    shutil.copyfile(record.files.onnx, folder / "data" / "model.onnx")
    shutil.copyfile(_LOADER, folder / "code" / _LOADER.name)
    (folder / "data" / "keras_module.txt").write_text("keras", encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(requirements), encoding="utf-8")
    (folder / "conda.yaml").write_text(yaml.safe_dump(environment), encoding="utf-8")
    in_virtualenv = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(yaml.safe_dump(in_virtualenv), encoding="utf-8")
    described.model_size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    described.save(str(folder / "MLmodel"))
