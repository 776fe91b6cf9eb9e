"""Trainings of a few neurons on a few synthetic images."""

import functools
from pathlib import Path

import keras
import numpy as np

from pipeline.artifacts.model_file import weights_digest
from pipeline.config.compose import compose
from pipeline.environment import use_threads
from pipeline.models import build
from pipeline.training.loop import fit

# TensorFlow takes the number of threads once a process, before it computes anything.
use_threads(1)


CONF = Path(__file__).parents[2] / "conf"
SHAPE, CLASSES = (6, 6), 4


def some_images(count: int, seed: int, noise: float = 60.0):
    """Noisy copies of one picture for each class; with more `noise`, more of them are ambiguous."""
    pictures = np.random.default_rng(99).integers(60, 200, (CLASSES, 36))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    images = pictures[labels] + rng.normal(0, noise, (count, 36))
    return np.clip(images, 0, 255).astype(np.uint8), labels


TRAIN, VALIDATION = some_images(203, seed=1), some_images(50, seed=2)
NO_IMAGES = (np.empty((0, 36), np.uint8), np.empty(0, np.int32))


@functools.cache
def composed():
    return compose(CONF, ["data=digits"])


def settings(patience=None, monitor="val_loss", min_delta=0.0, **train):
    early = {"patience": patience, "monitor": monitor, "min_delta": min_delta}
    defaults = {"epochs": 3, "learning_rate": 0.01, "batch_size": 32, "xla": False}
    section = composed().train.model_dump() | defaults | train | {"early_stopping": early}
    return type(composed().train).model_validate(section)


def network(seed=0, **model):
    keras.utils.set_random_seed(seed)
    changed = {"hidden_units": (12,)} | model
    return build(composed().model.model_copy(update=changed), SHAPE, CLASSES)


def trained(train=TRAIN, validation=VALIDATION, seed=0, head="softmax", model=None, **config):
    net = network(seed, **(model or {}))
    history = fit(net, train, validation, settings(**config), image_shape=SHAPE, seed=seed, head=head)
    return weights_digest(net), history, net


def scaled(images):
    return images.astype(np.float32) / 255
