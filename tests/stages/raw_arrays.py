"""Raw arrays of a small data set, and the configuration of preprocess for them."""

import functools
from pathlib import Path

import numpy as np
import yaml

from pipeline.artifacts.workspace import Workspace
from pipeline.config.compose import compose
from pipeline.config.params import view

REPOSITORY = Path(__file__).parents[2]
CLASSES = ("cat", "dog", "owl")


@functools.cache
def declared() -> tuple[str, ...]:
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    return tuple(stages["preprocess"]["params"])


@functools.cache
def composed():
    return compose(REPOSITORY / "conf", ["data=digits"])


def config(classes=CLASSES, image_size=(5, 4), colour="grey", validation_images=0, **settings):
    reader = composed().data.reader.model_copy(update={"image_size": image_size, "colour": colour})
    changed = {"name": "pets", "classes": classes, "reader": reader, "sha256": None}
    changed["validation_images"] = validation_images
    data = composed().data.model_copy(update=changed)
    settings = {"validation_fraction": 0.25, "validation_split": "last", "seed": 0} | settings
    changed = {"data": data, "preprocess": composed().preprocess.model_copy(update=settings)}
    return view(composed().model_copy(update=changed), declared())


def save(workspace: Workspace, images=None, labels=None, **arrays) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    raw = {
        "train_images": rng.integers(0, 256, (40, 5, 4), dtype=np.uint8),
        "train_labels": (np.arange(40) % 3).astype(np.int32),
        "test_images": rng.integers(0, 256, (7, 5, 4), dtype=np.uint8),
        "test_labels": (np.arange(7) % 3).astype(np.int32),
    } | arrays
    workspace.raw.mkdir(parents=True, exist_ok=True)
    for name, array in raw.items():
        np.save(workspace.raw / f"{name}.npy", array)
    return raw
