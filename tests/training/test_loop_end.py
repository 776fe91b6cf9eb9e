"""When a training ends: after all epochs, early, or because it diverged."""

import numpy as np
import pytest
from small_training import NO_IMAGES, SHAPE, TRAIN, network, settings, some_images, trained

from pipeline.artifacts.model_file import weights_digest
from pipeline.errors import PipelineError
from pipeline.training.loop import fit


def train_until_it_stops(validation, **config):
    """Overfit a few ambiguous images: the validation results get better, then worse."""
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
    _, history, _ = trained(validation=NO_IMAGES)
    assert [(epoch.val_loss, epoch.val_accuracy) for epoch in history.epochs] == [(None, None)] * 3


# Each layer enlarges the values of the one before.
DEEP = {"hidden_units": (30,) * 25, "activation": "relu"}


def test_a_loss_that_is_not_a_number_is_an_error_with_epoch_and_learning_rate():
    with pytest.raises(PipelineError, match=r"diverged in epoch \d.*learning_rate \(now 10\.0\)"):
        trained(model={"hidden_units": (300,) * 12}, learning_rate=10.0, epochs=20)


def test_weights_that_overflow_in_validation_are_an_error():
    with pytest.raises(PipelineError, match=r"diverged in epoch 1"):
        trained(model=DEEP | {"activation": "selu"}, learning_rate=10.0, epochs=1, batch_size=1000)


@pytest.mark.parametrize("units", [1, 8])
def test_weights_that_overflow_in_the_last_step_are_an_error(units):
    net = network(hidden_units=(8, 8), activation="tanh")
    # Black images give logits of 0, a finite loss, and for some units a gradient of 0 times infinity.
    first, bias, second, bias_2, last, bias_3 = net.get_weights()
    second[:units] = last[:] = 1e30
    net.set_weights([first, bias, second, bias_2, last, bias_3])
    black = np.zeros_like(TRAIN[0]), TRAIN[1]
    with pytest.raises(PipelineError, match=r"diverged in epoch 1 \(loss 1\.386\)"):
        fit(net, black, NO_IMAGES, settings(epochs=1, batch_size=1000), image_shape=SHAPE, seed=0)
