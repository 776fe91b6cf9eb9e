"""The model of a run in MLflow: the files as DVC caches them, with what one must know to use them."""

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

# Set when all of the model is there.
MODEL_TAG = "pipeline.weights_sha256"
_LOADER = Path(__file__).with_name("onnx_classifier.py")


def log_model(store: Store, run: MlflowRun, record: Record) -> str:
    """Have the run's experiment hold the model of `record`, once; its id in MLflow.

    `MlflowClient` is called step by step: `mlflow.keras.log_model` can't go on where it was cut off.

    Raises:
        PipelineError: the model's file is missing, or is not the run's.
        MlflowException: the store can't be reached.
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
    return model_id


def _find_or_create(store: Store, run: MlflowRun, record: Record) -> "LoggedModel":
    if found := logged_model_of(store.client, store.experiment, run.id):
        return found
    config = record.config
    return store.client.create_logged_model(
        store.experiment,
        # MLflow refuses some characters.
        name=re.sub(r"[^\w-]+", "-", f"{record.run['data']['name']}-{config['model']['name']}"),
        source_run_id=run.id,
        params={key: shortened(value) for key, value in leaves(config)},
        tags={key: shortened(value) for key, value in _facts(record).items()},
    )


def _facts(record: Record) -> dict[str, Any]:
    """What one must know to use the model."""
    data = record.run["data"]
    return {
        "data": data["name"],
        "classes": data["classes"],
        "weights_sha256": record.run["result"]["weights_sha256"],
    }


def _log_metrics(run: MlflowRun, model: str, epoch: int) -> None:
    """Give the model the metrics of the epoch whose weights it has."""
    from mlflow.entities import Metric

    metrics = [
        Metric(found.key, found.value, found.timestamp, found.step, model_id=model, run_id=run.id)
        for key in Epoch.__dataclass_fields__
        for found in run.client.get_metric_history(run.id, key)
        if found.step == epoch
    ]
    if metrics:
        run.client.log_batch(run.id, metrics)


def _save(folder: Path, model: "LoggedModel", run: MlflowRun, record: Record) -> None:
    """Write the model in MLflow's format, in two flavours: for Keras, and for ONNX Runtime as a function.

    By MLflow's own keras.save_model it would have one, whose function needs TensorFlow.
    """
    import numpy as np
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    data, packages = record.run["data"], record.origin
    images = TensorSpec(np.dtype("uint8"), (-1, *data["image_shape"]))
    scores = TensorSpec(np.dtype("float32"), (-1, len(data["classes"])))
    # What the function needs; TensorFlow and Keras are in the metadata, with their versions.
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
        # The images have no name: Keras warns of a mapping by names.
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
