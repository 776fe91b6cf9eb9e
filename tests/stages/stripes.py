"""A workspace for evaluate: made-up images, and models that are nearly always right about them."""

import csv
import dataclasses
import json
import math
from pathlib import Path

import numpy as np

from linear_model import linear_model
from pipeline.artifacts.processed import read_dataset, write_dataset
from pipeline.artifacts.workspace import RAW_ARRAYS, sha256
from pipeline.config.compose import compose
from pipeline.stages import preprocess

CONF = Path(__file__).parents[2] / "conf"
HISTORY = (
    "epoch,train_loss,train_accuracy,val_loss,val_accuracy,learning_rate,best\n"
    "1,0.5,0.8,0.4,0.85,0.001,0\n2,0.3,0.9,0.3,0.91,0.001,1\n3,0.2,0.95,0.35,0.9,0.001,0\n"
)
TEST_IMAGES = 2300  # Two batches and a rest.


def composed():
    """Return the configuration for images of 4×5 pixels in three classes."""
    return compose(
        CONF,
        [
            "data.name=stripes",
            "data.sha256=null",
            "data.classes=[zero,one,two]",
            "evaluate.top_losses=3",
            "data.reader.image_size=[4,5]",
        ],
    )


def prepare(config, workspace):
    """Give a workspace data, a model and a history, and return it."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300 + TEST_IMAGES, 4, 5), dtype=np.uint8)
    labels = images.reshape(-1, 20)[:, :3].argmax(axis=1).astype(np.int32)
    workspace.raw.mkdir(parents=True)
    for name, array in zip(RAW_ARRAYS, (images[:300], labels[:300], images[300:], labels[300:]), strict=True):
        np.save(workspace.raw / f"{name}.npy", array)
    preprocess.run(config, workspace)
    put_model(workspace)
    workspace.history.write_text(HISTORY)
    return workspace


def record_test_split(workspace):
    """Update dataset.json to the current test split."""
    dataset = read_dataset(workspace)
    files = {name: sha256(workspace.processed / "test" / f"{name}.npy") for name in ("images", "labels")}
    write_dataset(workspace, dataclasses.replace(dataset, sha256={**dataset.sha256, "test": files}))


def put_model(workspace, *arguments, **changes):
    """Put such a model into the workspace, as the stage train does."""
    write_model(workspace.onnx, *arguments, **changes)
    put_run(workspace)


def put_run(workspace):
    values = composed().model_dump(mode="json")
    config = {key: values[key] for key in ("seed", "model", "train")}
    result = {"onnx_sha256": sha256(workspace.onnx), "parameters": 60, "epochs": 3}
    workspace.run.write_text(json.dumps({"name": "stripes-1", "config": config, "result": result}))


def write_model(path, weight=4.0, classes=3, image_shape=(4, 5)):
    """Write a model that takes the brightest of the first pixels for the class, which is nearly right."""
    kernel = weight * np.eye(math.prod(image_shape), classes)
    kernel[:, 1] *= 0.9
    linear_model(path, kernel, image_shape=image_shape)


def put_scores(workspace, scores):
    """Put a model into the workspace that gives these scores for each image."""
    linear_model(workspace.onnx, np.zeros((20, 3)), scores, image_shape=(4, 5), softmax=False)
    put_run(workspace)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def reports(workspace):
    root = workspace.metrics.parent
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def with_settings(config, **settings):
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update=settings)})
