"""The identity of a run: it depends on the declared inputs of its training, and on nothing else."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.artifacts.history import Trained
from pipeline.artifacts.processed import Dataset, read_training_dataset
from pipeline.artifacts.workspace import Workspace, sha256, write_text
from pipeline.config.schema import Config
from pipeline.config.section import value_at
from pipeline.errors import PipelineError

# The params of the stage train, as in dvc.yaml.
TRAIN_PARAMS = ("seed", "model", "train", "modules.model", "modules.backend")


def identify(config: Config, workspace: Workspace, code: Mapping[str, Path]) -> dict[str, Any]:
    """Return the contents of models/run.json before the training begins.

    Of the configuration only `TRAIN_PARAMS` count; `code` has the files that the stage train depends on, by
    their names in dvc.yaml.

    Returns:
        `id`, 32 hex digits of a hash of the inputs; `name`, derived from it; and the inputs: `config`, `data`
        with the number of images and the digest of each split that is trained on, and `code`, a digest.
    """
    dataset = read_training_dataset(workspace)
    values = config.model_dump(mode="json")
    inputs = {
        "config": {key: value_at(values, key) for key in TRAIN_PARAMS},
        "data": {
            "name": dataset.name,
            "classes": list(dataset.classes),
            "image_shape": list(dataset.image_shape),
            "reader": dict(dataset.reader),
            "splits": {split: describe_split(dataset, split) for split in ("train", "validation")},
        },
        "code": _digest({name: sha256(path) for name, path in code.items()}),
    }
    number = _digest(inputs)[:32]
    return {"id": number, "name": f"{dataset.name}-{config.model.name}-{number[:6]}", **inputs}


def describe_split(dataset: Dataset, split: str) -> dict[str, Any]:
    """Return the number of images in a split, and one digest of the images and their labels."""
    return {"images": dataset.counts[split].total, "sha256": _digest(dict(dataset.sha256[split]))}


def evaluation_of(config: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Return what distinguishes an evaluation from others of the same run.

    Of the configuration only `evaluate` counts, and of the data only the test split.

    Returns:
        `id`, 8 hex digits of a hash of the rest; `settings`, the section `evaluate`; `test`, the result of
        `describe_split`.
    """
    inputs = {"settings": dict(config["evaluate"]), "test": describe_split(dataset, "test")}
    return {"id": _digest(inputs)[:8], **inputs}


def complete(run: Mapping[str, Any], trained: Trained, model: Path) -> dict[str, Any]:
    """Return the contents of models/run.json after the training: `run` with its `result`.

    The seconds of the training are not part of it: they belong to one occasion.
    """
    result = {key: value for key, value in asdict(trained).items() if key != "cpu_seconds"}
    return {**run, "result": result | {"model_sha256": sha256(model)}}


def write_run(path: Path, run: Mapping[str, Any]) -> None:
    """Write models/run.json, which `read_run` reads."""
    write_text(path, json.dumps(run, indent=2, ensure_ascii=False) + "\n")


def read_run(path: Path) -> dict[str, Any]:
    """Return the contents of models/run.json.

    Raises:
        PipelineError: If the file is missing or damaged.
    """
    try:
        run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not {"id", "name", "config", "data"} <= run.keys():
            raise ValueError("it was written by an older version")  # noqa: TRY301
    except (OSError, ValueError, AttributeError) as error:
        raise PipelineError(f"{path} does not describe a run ({error}): run `dvc repro`.") from None
    return run


def refuse_foreign_model(run: Mapping[str, Any], files: Workspace) -> None:
    """Refuse model files that are missing or that another run wrote."""
    for path, digest in ((files.model, "model_sha256"), (files.onnx, "onnx_sha256")):
        if not path.exists():
            raise PipelineError(f"{path} is missing: `dvc repro` restores the one in models/.")
        if digest not in run.get("result", {}):
            raise PipelineError(f"{files.run} was written by an older version: run `dvc repro`.")
        if sha256(path) != run["result"][digest]:
            raise PipelineError(
                f"{path} is not the model of the run {run['name']} that {files.run} names, so MLflow does "
                "not show it. `dvc repro --force --single-item train` trains the run's model again."
            )


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
