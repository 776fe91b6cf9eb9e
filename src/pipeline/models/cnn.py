"""cnn: stages of convolutions, each ending in pooling, then one dense layer."""

import keras

from pipeline.config import CnnSection

# Its convolutions take a multiple of the time of those of TensorFlow.
FASTER_WITH_XLA = False


def build(config: CnnSection, image_shape: tuple[int, ...], classes: int) -> keras.Model:
    """A convolutional network; see `pipeline.models.build`."""
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
                # Normalisation takes any bias out again.
                use_bias=config.normalisation == "none",
                name=f"convolution_{name}",
            )(features)
            if config.normalisation == "batch":
                features = keras.layers.BatchNormalization(name=f"normalisation_{name}")(features)
            features = keras.layers.Activation(config.activation, name=f"activation_{name}")(features)
        if stage.pool:
            features = keras.layers.MaxPooling2D(name=f"pool_{number}")(features)
    features = keras.layers.Flatten(name="features")(features)
    if config.dropout > 0:
        features = keras.layers.Dropout(config.dropout, name="dropout")(features)
    logits = keras.layers.Dense(classes, name="logits")(features)
    return keras.Model(pixels, logits, name="cnn")
