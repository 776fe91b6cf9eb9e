"""pretrained: a network of keras.applications with pretrained weights, then one dense layer."""

import os
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.section import Digest, Fraction, ModelSection
from pipeline.errors import PipelineError
from pipeline.models import digest_of_weights, repository

if TYPE_CHECKING:
    import keras

FASTER_WITH_XLA = False
_SMALLEST = 32  # pixels; the smallest height and width that the backbones take
# Mean and standard deviation of ImageNet's pixels in [0, 1], by channel.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BY_CHANNEL = (
    [1 / deviation for deviation in _DEVIATION],
    [-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)],
)
# Scale and offset that each family expects on pixels in [0, 1]. Keras's own layer for it can't be exported.
_SCALES: dict[str, tuple[Any, Any]] = {
    "MobileNetV3": (2.0, -1.0),
    "EfficientNetV2S": (255 / 128, -1.0),
    "EfficientNetV2B": _BY_CHANNEL,
    "ConvNeXt": _BY_CHANNEL,
}

Backbone = Literal[
    "MobileNetV3Small",
    "MobileNetV3Large",
    "EfficientNetV2B0",
    "EfficientNetV2B1",
    "EfficientNetV2B2",
    "EfficientNetV2B3",
    "EfficientNetV2S",
    "ConvNeXtTiny",
    "ConvNeXtSmall",
    "ConvNeXtBase",
]


class PretrainedSection(ModelSection):
    """`model=pretrained`; conf/model/pretrained.yaml has the defaults and explains each value."""

    name: Literal["pretrained"]
    backbone: Backbone
    weights: Annotated[str, Field(min_length=1)] | None
    sha256: Digest | None
    fine_tune_from: Annotated[int, Field(ge=1)] | None
    fine_tune_rate: Annotated[float, Field(gt=0, le=1)]
    dropout: Fraction

    @model_validator(mode="after")
    def _only_weights_are_pinned(self) -> Self:
        if self.sha256 and self.weights is None:
            raise ValueError("sha256 pins weights, and weights is null: set it to null, too")
        return self


def build(config: PretrainedSection, image_shape: tuple[int, ...], classes: int) -> "keras.Model":
    """Build the backbone, which is frozen until `thaw`, and a dense layer; see `pipeline.models.build`.

    Raises:
        PipelineError: If the weights can't be loaded or are not the pinned ones.
    """
    import keras

    height, width, channels = image_shape if len(image_shape) == 3 else (*image_shape, 1)
    pixels = keras.Input((prod(image_shape),), name="pixels")
    features = keras.layers.Reshape((height, width, channels), name="image")(pixels)
    if channels == 1:
        features = keras.layers.Concatenate(name="colour")([features] * 3)
    if min(height, width) < _SMALLEST:
        height, width = (max(side, _SMALLEST) for side in (height, width))
        features = keras.layers.Resizing(height, width, name="enlarge")(features)
    [(scale, offset)] = [of for family, of in _SCALES.items() if config.backbone.startswith(family)]
    features = keras.layers.Rescaling(scale, offset, name="scale")(features)
    features = _backbone(config, (height, width, 3))(features)
    features = keras.layers.Dropout(config.dropout, name="dropout")(features)
    logits = keras.layers.Dense(classes, name="logits")(features)
    return keras.Model(pixels, logits, name="pretrained")


def thaw(network: "keras.Model") -> None:
    """Unfreeze the backbone, except for batch normalisation, whose statistics few pictures would ruin."""
    import keras

    backbone = network.get_layer("backbone")
    backbone.trainable = True
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def _backbone(config: PretrainedSection, shape: tuple[int, int, int]) -> "keras.Model":
    import keras

    make = getattr(keras.applications, config.backbone)
    settings = {"include_top": False, "include_preprocessing": False, "input_shape": shape, "pooling": "avg"}
    imagenet = config.weights == "imagenet"
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    path = repository() / Path(config.weights or "").expanduser()
    if config.weights and not imagenet and not path.is_file():
        raise PipelineError(f"There is no file {path}: model.weights is {config.weights}.")
    try:
        with _cache_in(home):
            # With its default name, from which Keras makes the name of the file to download.
            backbone = make(weights="imagenet" if imagenet else None, **settings)
        if config.weights and not imagenet:
            backbone.load_weights(path)
    # A failed download or a damaged file can make Keras raise anything.
    except Exception as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" ...").rstrip(".")
        by_hand = f". Without a network, put the file that Keras downloads into {home / 'models'} by hand."
        raise PipelineError(
            f"The weights of {config.backbone} (model.weights is {config.weights}) can't be loaded: {reason}"
            + by_hand * imagenet
        ) from None
    if config.weights is not None:
        found = digest_of_weights(backbone)
        if config.sha256 is None:
            raise PipelineError(
                "model.sha256 pins nothing, so a result could not tell when the weights change; nothing was "
                f"trained. Pin these, in conf/model or as model.sha256={found}"
            )
        if found != config.sha256:
            raise PipelineError(
                f"The weights of {config.backbone} have the SHA-256 {found}, not the pinned {config.sha256}."
            )
    backbone = _with_depthwise_convolutions(backbone)
    _name(backbone)
    backbone.trainable = False
    return backbone


@contextmanager
def _cache_in(home: Path) -> Iterator[None]:
    """Let Keras keep weights in its usual folder: it was imported with one that can't exist."""
    from keras.src.backend import config

    with suppress(OSError):  # Keras then takes a temporary folder.
        home.mkdir(parents=True, exist_ok=True)
    before = config.keras_home
    config.keras_home = lambda: str(home)
    try:
        with warnings.catch_warnings():
            # That there are no weights for images of this size: those for 224×224 pixels are wanted.
            warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
            yield
    finally:
        config.keras_home = before


def _with_depthwise_convolutions(backbone: "keras.Model") -> "keras.Model":
    """Replace grouped convolutions, which Keras runs in XLA and which can't be exported to ONNX."""
    import keras

    def is_grouped(layer: "keras.layers.Layer") -> bool:
        return isinstance(layer, keras.layers.Conv2D) and layer.groups > 1

    def copy(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        if not is_grouped(layer):
            return layer.__class__.from_config(layer.get_config())
        # In all backbones, the groups are single channels.
        return keras.layers.DepthwiseConv2D(
            layer.kernel_size, layer.strides, layer.padding, use_bias=layer.use_bias, name=layer.name
        )

    if not any(map(is_grouped, backbone.layers)):
        return backbone
    copied = keras.models.clone_model(backbone, clone_function=copy)
    for before, after in zip(backbone.layers, copied.layers, strict=True):
        weights = before.get_weights()
        if is_grouped(before):
            weights[0] = weights[0].transpose(0, 1, 3, 2)
        after.set_weights(weights)
    return copied


def _name(backbone: "keras.Model") -> None:
    """Rename the layers by their position, so that the file has the same bytes in every process."""
    backbone.name = "backbone"
    for number, operation in enumerate(backbone.operations):
        operation.name = f"{type(operation).__name__.lower()}_{number}"
