import functools
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.config.compose import compose
from pipeline.environment import use_threads
from pipeline.errors import explain
from pipeline.models import build, inference_model

use_threads(1)

CONF = Path(__file__).parents[2] / "conf"


@functools.cache
def composed():
    return compose(CONF, ["experiment=baseline"])


def network(shape=(28, 28), classes=10, **changed):
    keras.utils.set_random_seed(0)
    return build(composed().model.model_copy(update=changed), shape, classes)


def test_the_baseline_has_79_510_parameters():
    net = network()
    assert (net.input_shape, net.output_shape) == ((None, 784), (None, 10))
    assert net.count_params() == 784 * 100 + 100 + 100 * 10 + 10 == 79_510


@pytest.mark.parametrize(
    ("shape", "classes", "hidden", "parameters"),
    [((8, 8), 10, (), 650), ((4, 6, 3), 2, (5, 4), 72 * 5 + 5 + 5 * 4 + 4 + 4 * 2 + 2)],
)
def test_widths_follow_the_config_and_the_data(shape, classes, hidden, parameters):
    net = network(shape, classes, hidden_units=hidden)
    assert net.output_shape == (None, classes)
    assert net.count_params() == parameters


def test_the_head_and_dropout_add_no_weights_to_the_network():
    shapes = [weight.shape for weight in network(head="softmax").get_weights()]
    assert [weight.shape for weight in network(head="sigmoid").get_weights()] == shapes
    dropped = network(dropout=0.5)
    assert [weight.shape for weight in dropped.trainable_variables] == shapes


def test_dropout_acts_in_training_only():
    net = network((8, 8), dropout=0.5)
    pixels = np.random.default_rng(0).random((3, 64), np.float32)
    at_rest = [net(pixels, training=False).numpy() for _ in range(2)]
    np.testing.assert_array_equal(*at_rest)
    assert (net(pixels, training=True).numpy() != at_rest[0]).any()


@pytest.mark.parametrize("shape", [(28, 28), (5, 7, 3)])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_the_served_model_turns_raw_images_into_a_distribution(shape, head):
    net = network(shape, 10, head=head)
    model = inference_model(net, shape)
    images = np.random.default_rng(0).integers(0, 256, (9, *shape), dtype=np.uint8)
    rows = model.predict_on_batch(images)
    assert (model.inputs[0].dtype, rows.dtype) == ("uint8", np.float32)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-6)

    logits = net(images.reshape(9, -1).astype(np.float32) / 255, training=False).numpy().astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(rows, powers / powers.sum(axis=1, keepdims=True), atol=1e-6)


def test_any_batch_is_served_and_gives_the_same_rows():
    model = inference_model(network(), (28, 28))
    images = np.random.default_rng(0).integers(0, 256, (33, 28, 28), dtype=np.uint8)
    one_by_one = np.concatenate([model.predict_on_batch(images[i : i + 1]) for i in range(33)])
    np.testing.assert_allclose(model.predict_on_batch(images), one_by_one, atol=1e-6)


def test_the_served_model_shares_its_weights_with_the_network():
    net = network()
    model = inference_model(net, (28, 28))
    net.set_weights([weight + 1 for weight in net.get_weights()])
    for mine, theirs in zip(net.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


# --- cnn ---------------------------------------------------------------------------------------


def convolutional(shape=(28, 28), classes=10, **changed):
    keras.utils.set_random_seed(0)
    return build(compose(CONF, ["model=cnn"]).model.model_copy(update=changed), shape, classes)


def test_the_convolutional_network_has_the_parameters_of_its_stages():
    convolutions = 25 * 32 + 9 * 32 * 32 + 9 * 32 * 64 + 9 * 64 * 64
    normalisations = 4 * (32 + 32 + 64 + 64)
    assert convolutional().count_params() == convolutions + normalisations + 7 * 7 * 64 * 10 + 10


@pytest.mark.parametrize("shape", [(8, 8), (12, 10, 3)])
def test_the_convolutional_network_takes_any_image_shape(shape):
    model = inference_model(convolutional(shape, 4), shape)
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    assert model.predict(images, verbose=0).sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_without_normalisation_the_convolutions_have_a_bias_instead():
    names = [weight.path for weight in convolutional(normalisation="none").weights]
    assert not any("normalisation" in name for name in names)
    assert sum("convolution" in name and "bias" in name for name in names) == 4


def test_the_recipe_for_own_pictures_has_stable_statistics_after_few_steps():
    keras.utils.set_random_seed(0)
    network = build(compose(CONF, ["experiment=folder"]).model, (32, 32, 3), 3)
    features = keras.Model(network.input, network.get_layer("features").output)
    pixels = np.random.default_rng(0).random((16, 32 * 32 * 3), np.float32)
    for _ in range(60):  # 100 pictures, until early stopping could give up
        in_training = features(pixels, training=True).numpy()
    at_rest = features(pixels, training=False).numpy()
    assert np.abs(at_rest - in_training).mean() < 0.2 * in_training.mean()


@pytest.mark.parametrize(("side", "features"), [(8, 128), (32, 4 * 4 * 128), (128, 128), (224, 128)])
def test_the_recipe_for_own_pictures_takes_small_and_large_ones(side, features):
    network = build(compose(CONF, ["experiment=folder"]).model, (side, side, 3), 5)
    assert network.get_layer("logits").kernel.shape == (features, 5)


@pytest.mark.parametrize(("side", "features"), [(28, 7 * 7 * 64), (64, 16 * 16 * 64), (96, 64), (224, 64)])
def test_the_dense_layer_of_a_cnn_does_not_grow_with_large_images(side, features):
    config = compose(CONF, ["model=cnn"]).model
    network = build(config, (side, side, 3), 5)
    assert network.get_layer("logits").kernel.shape == (features, 5)
    for pooling, expected in (("flatten", (side // 4) ** 2 * 64), ("average", 64)):
        chosen = build(config.model_copy(update={"pooling": pooling}), (side, side, 3), 5)
        assert chosen.get_layer("logits").kernel.shape == (expected, 5)


def test_a_residual_cnn_adds_the_input_of_a_stage_to_its_output():
    config = compose(CONF, ["model=cnn"]).model
    plain, residual = (build(config.model_copy(update={"residual": on}), (8, 8), 3) for on in (False, True))
    assert [layer.name for layer in residual.layers if layer not in plain.layers and "sum" in layer.name] == [
        "sum_3"
    ]
    residual.set_weights(plain.get_weights())
    pixels = np.random.default_rng(0).random((2, 64), np.float32)
    assert not np.allclose(plain(pixels), residual(pixels))


def test_images_without_a_pixel_left_after_the_poolings_are_refused_in_a_sentence():
    photos = compose(CONF, ["experiment=folder"]).model
    for shape in ((1, 1), (6, 6), (5, 300, 3)):
        with pytest.raises(ValueError, match="Computed output size") as caught:
            build(photos, shape, 2)
        assert "images are too small for the model" in (explain(caught.value) or "")
