"""Models: each module here is an architecture, with its settings and its `build`.

Every network maps flat pixels in [0, 1], float32 (batch, pixels), to logits, float32 (batch, classes).
"""

import importlib
from collections.abc import Callable
from math import prod
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pipeline.config.section import ModelSection

if TYPE_CHECKING:
    import keras


def build(config: ModelSection, image_shape: tuple[int, ...], classes: int) -> "keras.Model":
    """The network that `config.name` stands for, with fresh weights.

    Args:
        config: the model section.
        image_shape: (height, width) or (height, width, channels).
        classes: how many there are.

    Returns:
        A model from float32 (batch, pixels) in [0, 1] to float32 logits (batch, classes).
    """
    network: keras.Model = _module(config).build(config, image_shape, classes)
    return network


def is_faster_with_xla(config: ModelSection) -> bool:
    """Whether XLA was measured to shorten the epochs of the architecture on a CPU."""
    return bool(getattr(_module(config), "FASTER_WITH_XLA", False))


def thaw(config: ModelSection) -> "Callable[[keras.Model], None] | None":
    """What has the part of a network trained that `build` keeps from it; None: all is trained."""
    found: Callable[[keras.Model], None] | None = getattr(_module(config), "thaw", None)
    return found


def repository() -> Path:
    """What relative paths of a model's settings are relative to."""
    from pipeline.artifacts.workspace import here

    return here().home


def digest_of_weights(network: "keras.Model") -> str:
    """What weights from elsewhere are pinned by: a SHA-256 over shape, type and values of each."""
    from pipeline.artifacts.model_file import weights_digest

    return weights_digest(network)


def inference_model(network: "keras.Model", image_shape: tuple[int, ...]) -> "keras.Model":
    """`network` with its preprocessing in front and a distribution behind: what is saved and served.

    Args:
        network: shares its weights with the result.
        image_shape: (height, width) or (height, width, channels).

    Returns:
        A model from uint8 images (batch, *image_shape) to float32 probabilities (batch, classes)
        whose rows sum to one.
    """
    import keras

    from pipeline.artifacts.processed import SCALE

    images = keras.Input(image_shape, dtype="uint8", name="images")
    pixels = keras.layers.Rescaling(SCALE, name="scale")(images)
    pixels = keras.layers.Reshape((prod(image_shape),), name="flatten")(pixels)
    probabilities = keras.layers.Softmax(name="probabilities")(network(pixels))
    return keras.Model(images, probabilities, name="classifier")


def _module(config: ModelSection) -> ModuleType:
    return importlib.import_module(f"{__name__}.{config.name}")
