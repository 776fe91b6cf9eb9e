"""mlp: dense layers on the flattened pixels."""

from math import prod

import keras

from pipeline.config import MlpSection

# An epoch of the plain design takes half the time.
FASTER_WITH_XLA = True


def build(config: MlpSection, image_shape: tuple[int, ...], classes: int) -> keras.Model:
    """A multilayer perceptron; see `pipeline.models.build`."""
    pixels = keras.Input((prod(image_shape),), name="pixels")
    hidden = pixels
    for number, units in enumerate(config.hidden_units, start=1):
        hidden = keras.layers.Dense(units, activation=config.activation, name=f"hidden_{number}")(hidden)
        if config.dropout > 0:
            hidden = keras.layers.Dropout(config.dropout, name=f"dropout_{number}")(hidden)
    logits = keras.layers.Dense(classes, name="logits")(hidden)
    return keras.Model(pixels, logits, name="mlp")
