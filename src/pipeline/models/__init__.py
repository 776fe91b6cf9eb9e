"""Architectures by name. A new one has a module here, a section in config.py and a file in conf/model.

Every network maps flat pixels in [0, 1], float32 (batch, pixels), to logits, float32 (batch, classes).
"""

import importlib
from math import prod

import keras

from pipeline.config import ModelSection


def build(config: ModelSection, image_shape: tuple[int, ...], classes: int) -> keras.Model:
    """The network that `config.name` stands for, with fresh weights.

    Args:
        config: the model section.
        image_shape: (height, width) or (height, width, channels).
        classes: how many there are.

    Returns:
        A model from float32 (batch, pixels) in [0, 1] to float32 logits (batch, classes).
    """
    module = importlib.import_module(f"pipeline.models.{config.name}")
    network: keras.Model = module.build(config, image_shape, classes)
    return network


def served(network: keras.Model, image_shape: tuple[int, ...]) -> keras.Model:
    """`network` with its preprocessing in front and a distribution behind: what is saved and served.

    Returns:
        A model from uint8 images (batch, *image_shape) to float32 probabilities (batch, classes)
        whose rows sum to one. It shares its weights with `network`.
    """
    images = keras.Input(image_shape, dtype="uint8", name="images")
    pixels = keras.layers.Rescaling(1 / 255, name="scale")(images)
    pixels = keras.layers.Reshape((prod(image_shape),), name="flatten")(pixels)
    probabilities = keras.layers.Softmax(name="probabilities")(network(pixels))
    return keras.Model(images, probabilities, name="classifier")
