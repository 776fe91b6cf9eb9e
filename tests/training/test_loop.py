"""The loop against Keras's own `fit`, and against itself."""

import functools
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from pipeline.artifacts.model_file import weights_digest
from pipeline.config.compose import compose
from pipeline.environment import use_threads
from pipeline.errors import PipelineError
from pipeline.models import build
from pipeline.training import program
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.loop import FineTune, class_weights, fit
from pipeline.training.optimizer import make_optimizer

# TensorFlow takes the number of threads once a process, before it computes anything.
use_threads(1)

CONF = Path(__file__).parents[2] / "conf"
SHAPE, CLASSES = (6, 6), 4


def some_images(count: int, seed: int, noise: float = 60.0):
    """Blurred copies of one picture a class; how many are ambiguous grows with `noise`."""
    pictures = np.random.default_rng(99).integers(60, 200, (CLASSES, 36))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    images = pictures[labels] + rng.normal(0, noise, (count, 36))
    return np.clip(images, 0, 255).astype(np.uint8), labels


TRAIN, VALIDATION = some_images(203, seed=1), some_images(50, seed=2)
NOBODY = (np.empty((0, 36), np.uint8), np.empty(0, np.int32))


@functools.cache
def composed():
    return compose(CONF, ["data=digits"])


def settings(patience=None, monitor="val_loss", min_delta=0.0, **train):
    early = {"patience": patience, "monitor": monitor, "min_delta": min_delta}
    defaults = {"epochs": 3, "learning_rate": 0.01, "batch_size": 32, "xla": False}
    section = composed().train.model_dump() | defaults | train | {"early_stopping": early}
    return type(composed().train).model_validate(section)


def network(seed=0, **model):
    keras.utils.set_random_seed(seed)
    changed = {"hidden_units": (12,)} | model
    return build(composed().model.model_copy(update=changed), SHAPE, CLASSES)


def trained(train=TRAIN, validation=VALIDATION, seed=0, head="softmax", model=None, **config):
    net = network(seed, **(model or {}))
    history = fit(net, train, validation, settings(**config), image_shape=SHAPE, seed=seed, head=head)
    return weights_digest(net), history, net


def scaled(images):
    return images.astype(np.float32) / 255


# --- Keras -------------------------------------------------------------------------------------


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


def test_the_sigmoid_head_trains_as_the_plain_design_does_in_keras():
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


def test_a_class_counts_by_how_rare_it_is_and_one_without_images_not_at_all():
    assert class_weights(np.array([0, 0, 0, 2], np.int32), 4) == (4 / 6, 0.0, 4 / 2, 0.0)


@pytest.mark.parametrize("xla", [True, False])
def test_sigmoid_and_softmax_heads_train_the_same_weights_bit_for_bit(xla):
    assert trained(head="sigmoid", xla=xla)[0] == trained(head="softmax", xla=xla)[0]


# --- what is random ----------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_seed_gives_the_same_weights_each_time_and_another_seed_others(dropout):
    model = {"dropout": dropout}
    first, history, _ = trained(model=model)
    again, history_again, _ = trained(model=model)
    assert (first, history) == (again, history_again)
    assert trained(model=model, seed=1)[0] != first


def test_what_ran_before_makes_no_difference():
    expected = trained(model={"dropout": 0.5})[0]
    net = network(model_seed := 0, dropout=0.5)
    keras.utils.set_random_seed(77)
    np.random.default_rng().random()
    fit(net, TRAIN, VALIDATION, settings(), image_shape=SHAPE, seed=model_seed)
    assert weights_digest(net) == expected


def test_the_masks_of_dropout_follow_from_the_seed_and_not_from_the_network_s_own():
    expected = trained(model={"dropout": 0.5})[0]
    net = network(7, dropout=0.5)
    net.set_weights(network(0, dropout=0.5).get_weights())
    fit(net, TRAIN, VALIDATION, settings(), image_shape=SHAPE, seed=0)
    assert weights_digest(net) == expected


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"seed": 1}),
        pytest.param({}, {"learning_rate": 0.003}, marks=pytest.mark.slow),
        ({"schedule": "cosine"}, {"schedule": "cosine", "learning_rate": 0.003}),
        pytest.param({"schedule": "cosine"}, {"schedule": "cosine", "epochs": 2}, marks=pytest.mark.slow),
        pytest.param({"schedule": "cosine"}, {"schedule": "cosine", "warmup": 0.5}, marks=pytest.mark.slow),
        pytest.param({}, {"beta_2": 0.9}, marks=pytest.mark.slow),
        pytest.param({}, {"optimizer": "adamw", "weight_decay": 0.0}, marks=pytest.mark.slow),
        ({"optimizer": "adamw"}, {"optimizer": "adamw", "weight_decay": 0.5}),
        ({}, {"ema_decay": 0.9}),
        pytest.param({}, {"label_smoothing": 0.2}, marks=pytest.mark.slow),
        pytest.param({}, {"batch_size": 16}, marks=pytest.mark.slow),
        pytest.param({}, {"xla": True}, marks=pytest.mark.slow),
        pytest.param({}, {"head": "sigmoid"}, marks=pytest.mark.slow),
        pytest.param({}, {"model": {"activation": "tanh"}}, marks=pytest.mark.slow),
        pytest.param(
            {"model": {"dropout": 0.5}}, {"model": {"dropout": 0.5}, "seed": 1}, marks=pytest.mark.slow
        ),
        ({"model": {"dropout": 0.5}}, {"model": {"dropout": 0.2}}),
    ],
)
def test_a_training_comes_to_the_same_whether_or_not_one_like_it_ran_before(before, after):
    trained(epochs=1, model={"hidden_units": (3,)})
    expected, history, _ = trained(**after)
    trained(epochs=1, model={"hidden_units": (3,)})
    trained(**before)
    assert trained(**after)[:2] == (expected, history)


def test_a_trained_network_is_left_alone_by_the_next_training():
    digest, _, net = trained()
    trained(seed=1)
    assert weights_digest(net) == digest


def losses_of_a_network_that_hardly_learns(**config):
    _, history, _ = trained(learning_rate=1e-30, **config)
    return [epoch.train_loss for epoch in history.epochs]


def test_dropout_silences_other_units_in_each_epoch():
    assert len(set(losses_of_a_network_that_hardly_learns(model={"dropout": 0.5}))) == 3
    assert len(set(losses_of_a_network_that_hardly_learns())) == 1


# --- memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", ["once", "every_epoch"])
def test_an_epoch_in_slices_gives_the_same_weights_bit_for_bit(shuffle):
    many = some_images(40_003, seed=1)
    whole, sliced = (
        trained(many, xla=True, batch_size=500, shuffle=shuffle, slice_megabytes=megabytes)[0]
        for megabytes in (64, 1)
    )
    assert sliced == whole


def test_validation_in_parts_equals_validation_at_once(monkeypatch):
    at_once = trained()[1].epochs[-1]
    monkeypatch.setattr(program, "VALIDATION_BATCH", 7)
    in_parts = trained()[1].epochs[-1]
    assert in_parts.val_accuracy == at_once.val_accuracy
    assert in_parts.val_loss == pytest.approx(at_once.val_loss, rel=1e-6)


# --- averages of the weights -------------------------------------------------------------------


def test_averaged_weights_are_those_that_keras_averages():
    _, history, ours = trained(ema_decay=0.9)
    theirs = network()
    optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    keras_fit(theirs, loss, optimizer, 32)
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    # What validation saw is what the model is.
    theirs.compile(loss=loss, metrics=["accuracy"])
    judged = theirs.evaluate(scaled(VALIDATION[0]), VALIDATION[1], verbose=0)
    assert [history.best.val_loss, history.best.val_accuracy] == pytest.approx(judged, rel=1e-4)


def test_averaging_changes_what_is_kept_and_not_how_it_is_learned():
    plain, averaged = trained()[1], trained(ema_decay=0.9)[1]
    assert [epoch.train_loss for epoch in averaged.epochs] == [epoch.train_loss for epoch in plain.epochs]
    assert averaged.best.val_loss != plain.best.val_loss


# --- when it ends ------------------------------------------------------------------------------


def train_until_it_stops(validation, **config):
    """Ambiguous images, learned by heart: validation gets better, then worse."""
    digests = []
    net = network(hidden_units=(64,))
    history = fit(
        net,
        some_images(60, seed=3, noise=250),
        validation,
        settings(epochs=40, learning_rate=0.02, **config),
        image_shape=SHAPE,
        seed=0,
        on_epoch=lambda epoch: digests.append(weights_digest(net)),
    )
    return net, history, digests


@pytest.mark.parametrize(("monitor", "best"), [("val_loss", min), ("val_accuracy", max)])
def test_early_stopping_keeps_the_best_weights_and_ends_after_patience(monitor, best):
    validation = some_images(100, seed=4, noise=250)
    net, history, digests = train_until_it_stops(validation, patience=3, monitor=monitor)
    values = [getattr(epoch, monitor) for epoch in history.epochs]
    assert history.best_epoch == values.index(best(values)) + 1
    assert len(history.epochs) == len(digests) == history.best_epoch + 3 < 40
    assert weights_digest(net) == digests[history.best_epoch - 1] != digests[-1]


def test_an_improvement_below_min_delta_does_not_count():
    validation = some_images(100, seed=4, noise=250)
    _, history, _ = train_until_it_stops(validation, patience=2, min_delta=1000.0)
    assert (history.best_epoch, len(history.epochs)) == (1, 3)


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_an_improvement_counts_if_it_is_more_than_min_delta(monitor):
    first, second = (getattr(epoch, monitor) for epoch in trained(epochs=2)[1].epochs)
    gain = abs(second - first)
    assert gain > 0
    for min_delta, best in ((0.9 * gain, 2), (1.1 * gain, 1)):
        history = trained(epochs=2, patience=2, monitor=monitor, min_delta=min_delta)[1]
        assert history.best_epoch == best


def test_a_plateau_is_no_improvement():
    history = trained(epochs=5, learning_rate=1e-30, patience=2)[1]
    assert (history.best_epoch, len(history.epochs)) == (1, 3)


def test_without_early_stopping_the_last_weights_are_kept():
    net, history, digests = train_until_it_stops(some_images(100, seed=4, noise=250))
    assert history.best_epoch == len(history.epochs) == 40
    assert weights_digest(net) == digests[-1]


def test_without_validation_images_there_are_no_validation_values():
    _, history, _ = trained(validation=NOBODY)
    assert [(epoch.val_loss, epoch.val_accuracy) for epoch in history.epochs] == [(None, None)] * 3


# Each layer multiplies what the one before blew up.
DEEP = {"hidden_units": (30,) * 25, "activation": "relu"}


def test_a_loss_that_is_no_number_ends_it_with_epoch_and_learning_rate():
    with pytest.raises(PipelineError, match=r"diverged in epoch \d.*learning_rate \(now 10\.0\)"):
        trained(model={"hidden_units": (300,) * 12}, learning_rate=10.0, epochs=20)


def test_weights_that_overflow_in_validation_end_it_too():
    with pytest.raises(PipelineError, match=r"diverged in epoch 1"):
        trained(model=DEEP | {"activation": "selu"}, learning_rate=10.0, epochs=1, batch_size=1000)


@pytest.mark.parametrize("units", [1, 8])
def test_weights_ruined_by_the_very_last_step_are_noticed(units):
    net = network(hidden_units=(8, 8), activation="tanh")
    # Black images give logits of 0, a finite loss, and for some units a gradient of 0 times infinity.
    first, bias, second, bias_2, last, bias_3 = net.get_weights()
    second[:units] = last[:] = 1e30
    net.set_weights([first, bias, second, bias_2, last, bias_3])
    black = np.zeros_like(TRAIN[0]), TRAIN[1]
    with pytest.raises(PipelineError, match=r"diverged in epoch 1 \(loss 1\.386\)"):
        fit(net, black, NOBODY, settings(epochs=1, batch_size=1000), image_shape=SHAPE, seed=0)


def test_another_number_of_threads_in_the_same_process_is_refused():
    trained(epochs=1)
    with pytest.raises(PipelineError, match=r"train\.threads is 2.* with 1: use a new process"):
        use_threads(2)


# --- schedules and losses ----------------------------------------------------------------------


def test_cosine_with_warm_up_rises_to_the_learning_rate_and_falls_to_nothing():
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


def test_label_smoothing_is_that_of_keras():
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


def test_augmented_training_is_reproducible():
    augment = {"shift": 1.0, "rotation": 10.0, "scale": 0.1, "shear": 0.1, "elastic": 0.5, "flip": 0.5}
    digests = [trained(augment=augment, shuffle="every_epoch")[0] for _ in range(2)]
    assert digests[0] == digests[1] != trained(shuffle="every_epoch")[0]


# --- fine-tuning -------------------------------------------------------------------------------


def two_parts():
    """A network whose first part is not trained from the beginning."""
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((36,)), keras.layers.Dense(12, "relu")], name="backbone")
    inner.trainable = False
    pixels = keras.Input((36,))
    return keras.Model(pixels, keras.layers.Dense(CLASSES)(inner(pixels)))


def thaw(net):
    net.get_layer("backbone").trainable = True


def tuned(fine_tune, checkpoints=None, epochs=4, on_epoch=lambda epoch: None, **config):
    net = two_parts()
    history = fit(
        net,
        TRAIN,
        VALIDATION,
        settings(epochs=epochs, **config),
        image_shape=SHAPE,
        seed=0,
        on_epoch=on_epoch,
        checkpoints=checkpoints,
        fine_tune=fine_tune,
    )
    return net, history


def test_a_part_is_trained_from_its_epoch_on_at_its_rate():
    before = two_parts().get_layer("backbone").get_weights()
    for epochs in (2, 3):
        net, history = tuned(FineTune(3, 0.1, thaw), epochs=epochs)
        after = net.get_layer("backbone").get_weights()
        same = [np.array_equal(a, b) for a, b in zip(after, before, strict=True)]
        assert all(same) == (epochs < 3)
    assert [epoch.learning_rate for epoch in history.epochs] == [0.01, 0.01, 0.001]
    # Each part of the training has a schedule of its own.
    _, history = tuned(FineTune(3, 0.1, thaw), schedule="cosine")
    assert [epoch.learning_rate for epoch in history.epochs] == pytest.approx([0.005, 0.0, 0.0005, 0.0])


def test_a_part_may_be_trained_from_the_second_epoch_on():
    _, history = tuned(FineTune(2, 0.1, thaw), epochs=3)
    assert [epoch.learning_rate for epoch in history.epochs] == [0.01, 0.001, 0.001]


# The last epoch, which is one of fine-tuning, and one that is never reached.
@pytest.mark.parametrize(("tuned_from", "ends_after"), [(4, 4), (6, 6), (9, 2)])
def test_fine_tuning_is_not_lost_to_early_stopping(tuned_from, ends_after):
    never_better = {"patience": 1, "monitor": "val_loss", "min_delta": 100.0}
    _, history = tuned(FineTune(tuned_from, 0.1, thaw), epochs=6, **never_better)
    assert (len(history.epochs), history.best_epoch) == (ends_after, 1)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_training_that_is_cut_before_or_after_fine_tuning_ends_with_the_same_weights(tmp_path, capsys, cut):
    class CutError(Exception):
        pass

    def stop(epoch):
        # The state of the epoch before is on disk.
        if epoch.epoch == cut + 1:
            raise CutError

    whole = tuned(FineTune(3, 0.1, thaw))[0]
    kept = Checkpoints(tmp_path / "kept.npz", 0.0)
    with pytest.raises(CutError):
        tuned(FineTune(3, 0.1, thaw), kept, on_epoch=stop)
    assert kept.epochs == cut
    again, seen = Checkpoints(tmp_path / "kept.npz", 0.0), []
    net, history = tuned(FineTune(3, 0.1, thaw), again, on_epoch=seen.append)
    assert weights_digest(net) == weights_digest(whole)
    assert tuple(seen) == tuple(history.epochs), "who watches sees those before the cut too"
    assert f"after epoch {cut}, from a checkpoint" in capsys.readouterr().out, "it does not start again"
