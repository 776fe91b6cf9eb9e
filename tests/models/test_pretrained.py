"""Backbones of keras.applications: their weights are loaded by the real code, from files that tests make."""

import hashlib
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras.src.applications import mobilenet_v3
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from pipeline.artifacts import model_file
from pipeline.artifacts.onnx_file import Description, RunName
from pipeline.config.compose import compose
from pipeline.environment import use_threads
from pipeline.errors import PipelineError
from pipeline.models import build, inference_model, thaw
from pipeline.models.pretrained import PretrainedSection
from pipeline.training.onnx_export import export

use_threads(1)

CONF = Path(__file__).parents[2] / "conf"
SHAPE = (32, 32, 3)
CACHED = "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"


def section(**changes):
    settings = compose(CONF, ["model=pretrained"]).model.model_dump() | {"weights": None}
    return PretrainedSection.model_validate(settings | changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with weights that were never published, and their digest."""
    folder = tmp_path_factory.mktemp("weights")
    keras.utils.set_random_seed(7)
    backbone = keras.applications.MobileNetV3Small(
        include_top=False, weights=None, input_shape=SHAPE, pooling="avg"
    )
    backbone.save_weights(folder / "made.weights.h5")
    # The form in which Keras publishes them.
    with h5py.File(folder / CACHED, "w") as file:
        save_weights_to_hdf5_group(file, backbone)
    return folder / "made.weights.h5", model_file.weights_digest(backbone)


def backbone_digest(network):
    return model_file.weights_digest(network.get_layer("backbone"))


def test_weights_of_a_file_are_used_once_they_are_pinned(made):
    path, digest = made
    with pytest.raises(PipelineError, match=rf"model\.sha256 pins nothing.*model\.sha256={digest}"):
        build(section(weights=str(path)), SHAPE, 3)
    with pytest.raises(PipelineError, match=rf"have the SHA-256 {digest}, not the pinned 0000"):
        build(section(weights=str(path), sha256="0" * 64), SHAPE, 3)
    network = build(section(weights=str(path), sha256=digest), SHAPE, 3)
    assert backbone_digest(network) == digest


@pytest.mark.parametrize(
    "backbone",
    [
        "MobileNetV3Small",
        pytest.param("EfficientNetV2B0", marks=pytest.mark.slow),
        pytest.param("EfficientNetV2S", marks=pytest.mark.slow),
        pytest.param("ConvNeXtTiny", marks=pytest.mark.slow),
    ],
)
def test_images_are_scaled_as_the_backbone_scales_them_in_keras(backbone):
    network = build(section(backbone=backbone), SHAPE, 3)
    original = getattr(keras.applications, backbone)(
        include_top=False, weights=None, input_shape=SHAPE, pooling="avg"
    )
    weights = network.get_layer("backbone").get_weights()
    original.set_weights([w.reshape(o.shape) for w, o in zip(weights, original.get_weights(), strict=True)])
    pixels = np.random.default_rng(0).random((2, 32 * 32 * 3), np.float32)
    features = keras.Model(network.inputs, network.get_layer("dropout").output)(pixels)
    expected = original(pixels.reshape(2, *SHAPE) * 255, training=False)
    # Sums of many terms, of which some nearly cancel; the weights are random, and so is how large they are.
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("content", "said"), [(None, "There is no file"), (b"no weights", "can't be loaded")]
)
def test_a_file_that_is_missing_or_holds_no_weights_is_refused(tmp_path, content, said):
    path = tmp_path / "x.weights.h5"
    if content:
        path.write_bytes(content)
    with pytest.raises(PipelineError, match=said):
        build(section(weights=str(path)), SHAPE, 3)


def test_imagenet_weights_come_from_keras_and_its_cache(made, tmp_path, monkeypatch):
    path, digest = made
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "new"))
    # Nothing listens there, as without a network.
    monkeypatch.setattr(mobilenet_v3, "BASE_WEIGHT_PATH", "http://127.0.0.1:9/")
    with pytest.raises(PipelineError, match=r"URL fetch failure on .*_v2\.h5.* into .*/new/models by"):
        build(section(weights="imagenet"), SHAPE, 3)
    # Keras checks the digests of its own files; here it shall check that of the test's file.
    published = path.with_name(CACHED).read_bytes()
    md5 = hashlib.md5(published).hexdigest()
    monkeypatch.setitem(mobilenet_v3.WEIGHTS_HASHES, "small_224_1.0_float", ("", md5))
    (tmp_path / "new" / "models").mkdir(exist_ok=True)
    (tmp_path / "new" / "models" / CACHED).write_bytes(published)
    with pytest.raises(PipelineError, match=rf"model\.sha256={digest}"):
        build(section(weights="imagenet"), SHAPE, 3)
    assert backbone_digest(build(section(weights="imagenet", sha256=digest), SHAPE, 3)) == digest


def test_the_backbone_is_frozen_until_thawed_and_its_normalisation_stays_frozen():
    network = build(section(), SHAPE, 3)
    assert [variable.path for variable in network.trainable_variables] == ["logits/kernel", "logits/bias"]
    thaw(section())(network)
    trained = {variable.path for variable in network.trainable_variables}
    assert len(trained) > 50
    normalisations = [
        layer
        for layer in network.get_layer("backbone").layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert normalisations
    assert not any(variable.path in trained for layer in normalisations for variable in layer.variables)


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (20, 50, 3)])
def test_small_and_grey_images_are_enlarged_and_get_three_channels(shape):
    network = build(section(), shape, 4)
    assert network(np.zeros((2, int(np.prod(shape))), np.float32)).shape == (2, 4)


def test_unused_weights_cannot_be_pinned():
    with pytest.raises(PipelineError, match="sha256 pins weights, and weights is null"):
        compose(CONF, ["model=pretrained", "model.weights=null", f"model.sha256={'0' * 64}"])


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["MobileNetV3Small", "EfficientNetV2B0", "ConvNeXtTiny"])
def test_a_backbone_is_saved_loaded_and_exported_reproducibly(tmp_path, backbone):
    digests = []
    for name in ("a.keras", "b.keras"):
        keras.utils.set_random_seed(0)
        network = build(section(backbone=backbone), SHAPE, 3)
        model = inference_model(network, SHAPE)
        model_file.save(model, tmp_path / name)
        digests.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    loaded = model_file.load(tmp_path / "a.keras")
    images = np.random.default_rng(0).integers(0, 256, (8, *SHAPE), np.uint8)
    np.testing.assert_array_equal(loaded(images), model(images))
    reader = compose(CONF, []).data.reader.model_copy(update={"image_size": (32, 32), "colour": "rgb"})
    classes = ("a", "b", "c")
    described = Description(
        run=RunName(), data="x", classes=classes, image_shape=SHAPE, reader=reader, weights_sha256="0" * 64
    )
    # The export refuses differences above 1e-5.
    _, classifier = export(model, described, images.reshape(8, -1))
    np.testing.assert_allclose(classifier.probabilities(images), model(images), atol=1e-5)
