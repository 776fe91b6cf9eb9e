"""The backend JAX against NumPy, against Keras and against itself; run by test_jax.py."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.compose import compose
from pipeline.environment import Target, import_keras, use

# Four parts of the processor act as devices, of which most tests use the first.
TARGET = Target("jax", "cpu", devices=4)
import_keras(TARGET)
use(TARGET)

import keras  # noqa: E402

from pipeline.artifacts.model_file import weights_digest  # noqa: E402
from pipeline.config.schema import AugmentSection  # noqa: E402
from pipeline.models import build  # noqa: E402
from pipeline.training.augment import augment, draw  # noqa: E402
from pipeline.training.backends._distortion import distort  # noqa: E402
from pipeline.training.backends.jax import _Halving  # noqa: E402
from pipeline.training.checkpoint import Checkpoints  # noqa: E402
from pipeline.training.loop import FineTune, fit  # noqa: E402

CONF = Path(__file__).parents[2] / "conf"
SHAPE, CLASSES = (6, 6), 4
COMPOSED = compose(CONF, ["data=digits", "train.backend=jax"])
EVERYTHING = {"shift": 1.0, "rotation": 10.0, "scale": 0.1, "shear": 0.1, "elastic": 0.5, "flip": 0.5}


def some_images(count, seed):
    """Noisy copies of one picture for each class."""
    pictures = np.random.default_rng(99).integers(60, 200, (CLASSES, 36))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    return np.clip(pictures[labels] + rng.normal(0, 60, (count, 36)), 0, 255).astype(np.uint8), labels


TRAIN, VALIDATION = some_images(203, seed=1), some_images(50, seed=2)


def settings(**train):
    defaults = {"epochs": 3, "learning_rate": 0.01}
    section = COMPOSED.train
    return type(section).model_validate(section.model_dump() | defaults | train)


def trained(train=TRAIN, head="softmax", model=None, checkpoints=None, on_epoch=lambda epoch: None, **config):
    keras.utils.set_random_seed(0)
    changed = {"hidden_units": (12,)} | (model or {})
    network = build(COMPOSED.model.model_copy(update=changed), SHAPE, CLASSES)
    history = fit(
        network, train, VALIDATION, settings(**config), image_shape=SHAPE, seed=0, head=head,
        checkpoints=checkpoints, on_epoch=on_epoch,
    )  # fmt: skip
    return network, history


@pytest.mark.parametrize("shape", [(9, 7), (5, 4, 3)])
@pytest.mark.parametrize("part", [*EVERYTHING, None])
def test_the_same_parameters_distort_as_numpy_does_to_within_a_grey_level(shape, part):
    values = {name: value if part in (name, None) else 0.0 for name, value in EVERYTHING.items()}
    settings = AugmentSection(**values)
    images = np.random.default_rng(1).integers(0, 256, (150, int(np.prod(shape))), dtype=np.uint8)
    expected = augment(images, shape, settings, np.random.default_rng(3))
    found = np.asarray(distort(images, shape, draw(len(images), settings, np.random.default_rng(3))))
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert (expected != images).any()


def test_it_trains_as_keras_fit_does():
    ours, history = trained(optimizer="adamw", weight_decay=0.1, ema_decay=0.9)
    keras.utils.set_random_seed(0)
    theirs = build(COMPOSED.model.model_copy(update={"hidden_units": (12,)}), SHAPE, CLASSES)
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1, use_ema=True, ema_momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    theirs.compile(optimizer, loss)
    order = np.random.default_rng([0]).permutation(len(TRAIN[1]))
    images = TRAIN[0][order].astype(np.float32) / 255
    losses = theirs.fit(images, TRAIN[1][order], batch_size=32, epochs=3, shuffle=False, verbose=0).history
    for mine, keras_ in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose([epoch.train_loss for epoch in history.epochs], losses["loss"], rtol=1e-4)


def test_sigmoid_and_softmax_heads_train_the_same_weights_bit_for_bit():
    assert weights_digest(trained(head="sigmoid")[0]) == weights_digest(trained()[0])


ALL_THAT_IS_RANDOM = {
    "shuffle": "every_epoch", "augment": EVERYTHING, "schedule": "cosine", "warmup": 0.3, "ema_decay": 0.9,
    "label_smoothing": 0.1, "model": {"dropout": 0.3},
}  # fmt: skip


def test_a_training_that_was_interrupted_ends_with_the_same_bits(tmp_path):
    whole, history = trained(**ALL_THAT_IS_RANDOM)
    assert len({epoch.learning_rate for epoch in history.epochs}) == 3

    def interrupt(epoch):
        if epoch.epoch == 3:
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint.npz"
    with pytest.raises(KeyboardInterrupt):
        trained(checkpoints=Checkpoints(path, 0.0), on_epoch=interrupt, **ALL_THAT_IS_RANDOM)
    seen = []
    resumed, _ = trained(checkpoints=Checkpoints(path, 0.0), on_epoch=seen.append, **ALL_THAT_IS_RANDOM)
    assert seen == history.epochs
    assert weights_digest(resumed) == weights_digest(whole)


def test_images_that_do_not_fit_are_streamed_in_slices_with_the_same_result():
    many = some_images(40_003, seed=1)
    whole, sliced = (
        weights_digest(trained(many, batch_size=500, epochs=2, slice_megabytes=megabytes)[0])
        for megabytes in (64, 1)
    )
    assert sliced == whole


@pytest.mark.parametrize("config", [{}, ALL_THAT_IS_RANDOM])
def test_four_devices_have_the_loss_curve_of_one(config):
    _, one = trained(**config)
    _, four = trained(devices=4, **config)
    curves = [[(epoch.train_loss, epoch.val_loss) for epoch in found.epochs] for found in (one, four)]
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-4)


def test_bfloat16_trains_weights_that_stay_float32():
    _, exact = trained()
    network, rounded = trained(precision="bfloat16")
    assert {str(weight.dtype) for weight in network.get_weights()} == {"float32"}
    losses = [[epoch.train_loss for epoch in found.epochs] for found in (exact, rounded)]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)


def test_layers_that_otherwise_use_tensorflow_are_trained_and_thawed_with_jax():
    keras.utils.set_random_seed(0)
    pixels = keras.Input((36,))
    image = keras.layers.Rescaling(2.0, -1.0)(keras.layers.Reshape((6, 6, 1))(pixels))
    image = keras.layers.Resizing(8, 8)(image)
    features = keras.layers.Dense(12, "relu", trainable=False, name="frozen")(keras.layers.Flatten()(image))
    network = keras.Model(pixels, keras.layers.Dense(CLASSES)(features))
    frozen = network.get_layer("frozen")

    def thaw(network):
        frozen.trainable = True

    seen = [frozen.kernel.numpy()]
    fit(
        network, TRAIN, VALIDATION, settings(), image_shape=SHAPE, seed=0, head="softmax",
        fine_tune=FineTune(epoch=3, rate=0.1, thaw=thaw),
        on_epoch=lambda epoch: seen.append(np.asarray(frozen.kernel)),
    )  # fmt: skip
    assert [bool((kernel == seen[0]).all()) for kernel in seen[1:]] == [True, True, False]


def test_halving_takes_the_largest_of_each_window_as_in_keras():
    images = np.random.default_rng(0).normal(size=(3, 7, 6, 2)).astype(np.float32)
    np.testing.assert_array_equal(_Halving((2, 2))(images), keras.layers.MaxPooling2D((2, 2))(images))


def test_tensorflow_is_not_imported():
    with pytest.raises(ImportError, match="without TensorFlow"):
        import tensorflow  # noqa: F401
    assert "tensorflow" not in sys.modules
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
