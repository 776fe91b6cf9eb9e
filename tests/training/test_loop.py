"""The loop trains as Keras's own `fit` does."""

import keras
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight
from small_training import CLASSES, CONF, SHAPE, TRAIN, VALIDATION, network, scaled, settings, trained

from pipeline.config.compose import compose
from pipeline.models import build
from pipeline.training.loop import class_weights, fit
from pipeline.training.optimizer import make_optimizer


def keras_fit(model, loss, optimizer, batch_size, seed=0, class_weight=None, train=None):
    images, labels = train or TRAIN
    order = np.random.default_rng([seed]).permutation(len(labels))
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model.fit(
        scaled(images[order]),
        labels[order],
        class_weight=class_weight,
        batch_size=batch_size,
        epochs=3,
        shuffle=False,
        validation_data=(scaled(VALIDATION[0]), VALIDATION[1]),
        verbose=0,
    ).history


def assert_same_training(ours, history, theirs, their_history):
    # The two sum in different orders: a few units in the last of float32's 7 digits, over 3 epochs.
    for mine, keras_ in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_, rtol=1e-3, atol=1e-5)
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        column = name if name.startswith("val") else f"train_{name}"
        mine = [getattr(epoch, column) for epoch in history.epochs]
        np.testing.assert_allclose(mine, their_history[name], rtol=1e-4, err_msg=name)


# 203 images: a last batch of 11, of 3, and one batch only.
@pytest.mark.parametrize(
    ("batch_size", "xla", "optimizer"),
    [(32, True, "adam"), (32, False, "adam"), (50, True, "adamw"), (1000, False, "adamw")],
)
def test_it_trains_as_keras_fit_does(batch_size, xla, optimizer):
    decay = {"weight_decay": 0.1} if optimizer == "adamw" else {}
    _, history, ours = trained(batch_size=batch_size, xla=xla, optimizer=optimizer, **decay)
    theirs = network()
    made = keras.optimizers.get(
        {"class_name": optimizer, "config": {"learning_rate": 0.01} | (decay or {"weight_decay": None})}
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert_same_training(ours, history, theirs, keras_fit(theirs, loss, made, batch_size))


def test_the_sigmoid_head_trains_as_the_plain_model_does_in_keras():
    plain = keras.Sequential(
        [
            keras.Input((36,)),
            keras.layers.Dense(12, activation="relu"),
            keras.layers.Dense(CLASSES, activation="sigmoid"),
        ]
    )
    plain.set_weights(network().get_weights())
    _, history, ours = trained(head="sigmoid")
    theirs = keras_fit(plain, "sparse_categorical_crossentropy", keras.optimizers.Adam(0.01), 32)
    # Keras's own val_loss is of the sigmoid's logits too, so all four columns agree.
    assert_same_training(ours, history, plain, theirs)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_balanced_classes_train_as_with_the_class_weights_of_keras_and_scikit_learn(smoothing):
    few = np.flatnonzero((TRAIN[1] != 0) | (np.arange(len(TRAIN[1])) < 20))
    rare = TRAIN[0][few], TRAIN[1][few]
    _, _, ours = trained(rare, class_weight="balanced", label_smoothing=smoothing)
    weights = compute_class_weight("balanced", classes=np.arange(CLASSES), y=rare[1])
    assert max(weights) > 2 * min(weights)
    theirs = network()

    def loss(labels, logits):
        labels = keras.ops.one_hot(keras.ops.reshape(labels, (-1,)), CLASSES)
        return keras.losses.categorical_crossentropy(labels, logits, True, smoothing)

    weighted = dict(enumerate(weights.tolist()))
    keras_fit(theirs, loss, keras.optimizers.Adam(0.01), 32, class_weight=weighted, train=rare)
    for mine, keras_ in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_, rtol=1e-3, atol=1e-5)
    plain = trained(rare, label_smoothing=smoothing)[2]
    assert (
        max(np.abs(a - b).max() for a, b in zip(ours.get_weights(), plain.get_weights(), strict=True)) > 1e-3
    )


def test_class_weights_grow_with_rarity_and_are_zero_without_images():
    assert class_weights(np.array([0, 0, 0, 2], np.int32), 4) == (4 / 6, 0.0, 4 / 2, 0.0)


@pytest.mark.parametrize("xla", [True, False])
def test_sigmoid_and_softmax_heads_train_the_same_weights_bit_for_bit(xla):
    assert trained(head="sigmoid", xla=xla)[0] == trained(head="softmax", xla=xla)[0]


def test_averaged_weights_equal_those_of_keras():
    _, history, ours = trained(ema_decay=0.9)
    theirs = network()
    optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    keras_fit(theirs, loss, optimizer, 32)
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    # The validation results are those of the final model.
    theirs.compile(loss=loss, metrics=["accuracy"])
    judged = theirs.evaluate(scaled(VALIDATION[0]), VALIDATION[1], verbose=0)
    assert [history.best.val_loss, history.best.val_accuracy] == pytest.approx(judged, rel=1e-4)


def test_averaging_changes_the_kept_weights_and_not_the_training():
    plain, averaged = trained()[1], trained(ema_decay=0.9)[1]
    assert [epoch.train_loss for epoch in averaged.epochs] == [epoch.train_loss for epoch in plain.epochs]
    assert averaged.best.val_loss != plain.best.val_loss


def test_cosine_with_warm_up_rises_to_the_learning_rate_and_falls_to_zero():
    steps = 4 * 7  # 203 images in batches of 32
    config = settings(
        epochs=4, optimizer="adamw", weight_decay=0.01, schedule="cosine", warmup=0.25, learning_rate=0.1
    )
    rate = make_optimizer(config, steps)._learning_rate
    rates = [float(rate(step)) for step in range(steps + 1)]
    assert rates[0] == 0
    assert rates[7] == max(rates) == pytest.approx(0.1)
    assert rates[7:] == sorted(rates[7:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-8)
    _, history, _ = trained(epochs=4, schedule="cosine", warmup=0.25, learning_rate=0.1)
    assert [epoch.learning_rate for epoch in history.epochs] == pytest.approx(rates[7::7], abs=1e-8)


def test_label_smoothing_equals_that_of_keras():
    ours = network()
    theirs = keras.models.clone_model(ours)
    theirs.set_weights(ours.get_weights())
    fit(ours, TRAIN, VALIDATION, settings(label_smoothing=0.1, epochs=1), image_shape=SHAPE, seed=0)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    theirs.compile(keras.optimizers.Adam(0.01), loss)
    order = np.random.default_rng([0]).permutation(len(TRAIN[1]))
    images, labels = scaled(TRAIN[0][order]), keras.utils.to_categorical(TRAIN[1][order], CLASSES)
    theirs.fit(images, labels, batch_size=32, epochs=1, shuffle=False, verbose=0)
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_batch_normalisation_trains_as_in_keras():
    config = compose(CONF, ["model=cnn", "model.dropout=0.0"]).model
    stages = tuple(stage.model_copy(update={"filters": 4}) for stage in config.stages)
    keras.utils.set_random_seed(0)
    ours = build(config.model_copy(update={"stages": stages}), SHAPE, CLASSES)
    theirs = keras.models.clone_model(ours)
    theirs.set_weights(ours.get_weights())
    fit(ours, TRAIN, VALIDATION, settings(epochs=1), image_shape=SHAPE, seed=0)
    theirs.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    order = np.random.default_rng([0]).permutation(len(TRAIN[1]))
    theirs.fit(scaled(TRAIN[0][order]), TRAIN[1][order], batch_size=32, epochs=1, shuffle=False, verbose=0)
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-4)
