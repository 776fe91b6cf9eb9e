"""Models: each module is an architecture, with its settings and its `build` function.

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
    """Build the network called `config.name`, with new weights.

    Args:
        config: the model section.
        image_shape: (height, width) or (height, width, channels).
        classes: the number of classes.

    Returns:
        A model from float32 (batch, pixels) in [0, 1] to float32 logits (batch, classes).
    """
    network: keras.Model = _module(config).build(config, image_shape, classes)
    return network


def is_faster_with_xla(config: ModelSection) -> bool:
    """Return whether XLA was measured to make epochs of the architecture faster on a CPU."""
    return bool(getattr(_module(config), "FASTER_WITH_XLA", False))


def thaw(config: ModelSection) -> "Callable[[keras.Model], None] | None":
    """Return the function that unfreezes the part frozen by `build`, or None if nothing is frozen."""
    found: Callable[[keras.Model], None] | None = getattr(_module(config), "thaw", None)
    return found


def repository() -> Path:
    """Return the folder that relative paths in a model's settings are relative to."""
    from pipeline.artifacts.workspace import here

    return here().home


def digest_of_weights(network: "keras.Model") -> str:
    """Return the SHA-256 of the shapes, types and values of all weights, by which they are pinned."""
    from pipeline.artifacts.model_file import weights_digest

    return weights_digest(network)


def inference_model(network: "keras.Model", image_shape: tuple[int, ...]) -> "keras.Model":
    """Add preprocessing and softmax to `network`: the model that is saved and served.

    Args:
        network: from pixels to logits; the result shares its weights.
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
