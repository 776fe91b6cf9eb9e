"""cnn: stages of convolutions, each followed by pooling, then one dense layer."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from pipeline.config.section import Activation, Fraction, ModelSection, Section

if TYPE_CHECKING:
    import keras

# XLA's convolutions take several times as long as those of TensorFlow.
FASTER_WITH_XLA = False
_LARGEST_FLATTENED = 64 * 64  # pixels; beyond that, the dense layer would have most of the parameters


class CnnStage(Section):
    """A number of convolutions with the same number of filters."""

    filters: Annotated[int, Field(ge=1, le=10_000)]
    kernel_size: Annotated[int, Field(ge=1, le=99)]
    convolutions: Annotated[int, Field(ge=1, le=100)]
    stride: Annotated[int, Field(ge=1, le=10)]
    pool: bool


class CnnSection(ModelSection):
    """`model=cnn`; conf/model/cnn.yaml has the defaults and explains each value."""

    name: Literal["cnn"]
    stages: Annotated[tuple[CnnStage, ...], Field(strict=False, min_length=1)]
    normalisation: Literal["batch", "none"]
    normalisation_momentum: Fraction
    residual: bool
    pooling: Literal["flatten", "average"] | None
    activation: Activation
    dropout: Fraction


def build(config: CnnSection, image_shape: tuple[int, ...], classes: int) -> "keras.Model":
    """Build a convolutional network; see `pipeline.models.build`."""
    import keras

    height, width, channels = image_shape if len(image_shape) == 3 else (*image_shape, 1)
    pixels = keras.Input((height * width * channels,), name="pixels")
    features = keras.layers.Reshape((height, width, channels), name="image")(pixels)
    for number, stage in enumerate(config.stages, start=1):
        for repeat in range(1, stage.convolutions + 1):
            name = f"{number}_{repeat}"
            features = keras.layers.Conv2D(
                stage.filters,
                stage.kernel_size,
                strides=stage.stride if repeat == 1 else 1,
                padding="same",
                # Normalisation would remove any bias.
                use_bias=config.normalisation == "none",
                name=f"convolution_{name}",
            )(features)
            if config.normalisation == "batch":
                features = keras.layers.BatchNormalization(
                    momentum=config.normalisation_momentum, name=f"normalisation_{name}"
                )(features)
            features = keras.layers.Activation(config.activation, name=f"activation_{name}")(features)
            if config.residual and repeat == 1:
                shortcut = features
        if config.residual and stage.convolutions > 1:
            features = keras.layers.Add(name=f"sum_{number}")([shortcut, features])
        if stage.pool:
            features = keras.layers.MaxPooling2D(name=f"pool_{number}")(features)
    pooling = config.pooling or ("flatten" if height * width <= _LARGEST_FLATTENED else "average")
    pool = keras.layers.Flatten if pooling == "flatten" else keras.layers.GlobalAveragePooling2D
    features = pool(name="features")(features)
    if config.dropout > 0:
        features = keras.layers.Dropout(config.dropout, name="dropout")(features)
    logits = keras.layers.Dense(classes, name="logits")(features)
    return keras.Model(pixels, logits, name="cnn")
