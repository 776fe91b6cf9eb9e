"""mlp: dense layers on the flattened pixels."""

from math import prod
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from pipeline.config.section import Activation, Fraction, ModelSection

if TYPE_CHECKING:
    import keras

# With XLA an epoch of the baseline takes half the time.
FASTER_WITH_XLA = True


class MlpSection(ModelSection):
    """`model=mlp`; conf/model/mlp.yaml has the defaults and explains each value."""

    name: Literal["mlp"]
    hidden_units: Annotated[tuple[Annotated[int, Field(ge=1, le=100_000)], ...], Field(strict=False)]
    activation: Activation
    dropout: Fraction


def build(config: MlpSection, image_shape: tuple[int, ...], classes: int) -> "keras.Model":
    """Build a multilayer perceptron; see `pipeline.models.build`."""
    import keras

    pixels = keras.Input((prod(image_shape),), name="pixels")
    hidden = pixels
    for number, units in enumerate(config.hidden_units, start=1):
        hidden = keras.layers.Dense(units, activation=config.activation, name=f"hidden_{number}")(hidden)
        if config.dropout > 0:
            hidden = keras.layers.Dropout(config.dropout, name=f"dropout_{number}")(hidden)
    logits = keras.layers.Dense(classes, name="logits")(hidden)
    return keras.Model(pixels, logits, name="mlp")
