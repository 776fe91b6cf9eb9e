import hashlib
from typing import get_args

import keras
import numpy as np
import onnx
import pytest

from linear_model import described
from pipeline.artifacts.onnx_file import load, write
from pipeline.config.section import Activation
from pipeline.environment import use_threads
from pipeline.errors import PipelineError
from pipeline.models import inference_model
from pipeline.training import onnx_export
from pipeline.training.onnx_export import export

use_threads(1)

IMAGES = np.random.default_rng(0).integers(0, 256, (1500, 64), dtype=np.uint8)
DESCRIPTION = described((8, 8), ("a", "b", "c"))
layers = keras.layers


def network(seed=0, body=("dense",)):
    """A network from 64 pixels to three logits."""
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((64,))
    features = layers.Reshape((8, 8, 1))(pixels)
    for part in body:
        if part == "convolution":
            features = layers.Conv2D(4, 3, padding="same")(features)
            features = layers.MaxPooling2D()(layers.Activation("gelu")(layers.BatchNormalization()(features)))
        elif part == "dense":
            features = layers.Dense(9, activation="relu")(layers.Flatten()(features))
        elif part == "operation":
            # Not from a layer, so that Keras's own gelu is exported.
            features = keras.ops.gelu(layers.Dense(9)(layers.Flatten()(features)), approximate=False)
        elif part == "recurrent":
            features = layers.LSTM(5)(layers.Reshape((8, 8))(features))
        elif part == "activations":
            flat = layers.Flatten()(features)
            features = layers.Concatenate()([layers.Dense(7, name)(flat) for name in get_args(Activation)])
    return inference_model(keras.Model(pixels, layers.Dense(3)(layers.Flatten()(features))), (8, 8))


def put(model, images, path):
    exported, _ = export(model, DESCRIPTION, images)
    write(path, exported, DESCRIPTION)


BODIES = [
    ("dense",),
    ("convolution", "convolution", "dense"),
    ("recurrent",),
    ("activations",),
    ("operation",),
]


@pytest.mark.parametrize("body", BODIES, ids="-".join)
def test_the_exported_model_predicts_as_keras_does(tmp_path, body):
    model = network(body=body)
    put(model, IMAGES, tmp_path / "model.onnx")
    classifier = load(tmp_path / "model.onnx")
    images = IMAGES.reshape(-1, 8, 8)
    found = classifier.probabilities(images)
    np.testing.assert_allclose(found, model.predict(images, verbose=0), atol=1e-6)
    np.testing.assert_array_equal(found, classifier.probabilities(images))
    assert np.ptp(found) > 0.1
    assert classifier.description == DESCRIPTION


@pytest.mark.parametrize("body", [("convolution", "dense"), ("recurrent",)], ids="-".join)
def test_equal_weights_give_equal_bytes_whatever_was_exported_before(tmp_path, body):
    digests = set()
    # The exporter sorts by names: from ten on another way than below.
    for number in range(2):
        path = tmp_path / f"{number}.onnx"
        put(network(body=body), IMAGES[:5], path)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
        for _ in range(9):
            network(seed=7)
    assert len(digests) == 1
    put(network(seed=1, body=body), IMAGES[:5], tmp_path / "other.onnx")
    assert hashlib.sha256((tmp_path / "other.onnx").read_bytes()).hexdigest() not in digests


def test_node_names_are_short_and_none_is_that_of_the_exporter(tmp_path):
    put(network(body=("recurrent",)), IMAGES[:5], tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    names = {name for node in model.graph.node for name in (node.name, *node.output)}
    assert "probabilities" in names
    assert not any("/" in name or ":" in name for name in names)


def test_a_file_that_would_compute_something_else_is_not_written(tmp_path, monkeypatch):
    right = onnx_export._exported

    def wrong(model):
        exported = right(model)
        for tensor in exported.graph.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            if array.shape == (64, 9):
                tensor.CopyFrom(onnx.numpy_helper.from_array(array * 1.01, tensor.name))
        return exported

    monkeypatch.setattr(onnx_export, "_exported", wrong)
    with pytest.raises(PipelineError, match="does not compute what Keras does: over 1,500 images"):
        put(network(), IMAGES, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_onnx_has_no_operations_for_is_refused_in_a_sentence(tmp_path):
    inputs = keras.Input((8, 8), dtype="uint8", name="images")
    _, strange = keras.ops.qr(keras.ops.cast(inputs, "float32"))
    model = keras.Model(inputs, keras.ops.softmax(strange[:, 0, :3]))
    with pytest.raises(PipelineError, match="No Op registered for Qr"):
        put(model, IMAGES[:1], tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
