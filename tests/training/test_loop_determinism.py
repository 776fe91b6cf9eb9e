"""The weights follow from the configuration and its seed, and from nothing else."""

import keras
import numpy as np
import pytest
from small_training import SHAPE, TRAIN, VALIDATION, network, settings, some_images, trained

from pipeline.artifacts.model_file import weights_digest
from pipeline.environment import use_threads
from pipeline.errors import PipelineError
from pipeline.training import program
from pipeline.training.loop import fit


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_seed_gives_the_same_weights_each_time_and_another_seed_others(dropout):
    model = {"dropout": dropout}
    first, history, _ = trained(model=model)
    again, history_again, _ = trained(model=model)
    assert (first, history) == (again, history_again)
    assert trained(model=model, seed=1)[0] != first


def test_random_numbers_drawn_before_make_no_difference():
    expected = trained(model={"dropout": 0.5})[0]
    net = network(model_seed := 0, dropout=0.5)
    keras.utils.set_random_seed(77)
    np.random.default_rng().random()
    fit(net, TRAIN, VALIDATION, settings(), image_shape=SHAPE, seed=model_seed)
    assert weights_digest(net) == expected


def test_dropout_masks_depend_on_the_seed_of_the_training_alone():
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
def test_an_earlier_similar_training_does_not_change_the_result(before, after):
    trained(epochs=1, model={"hidden_units": (3,)})
    expected, history, _ = trained(**after)
    trained(epochs=1, model={"hidden_units": (3,)})
    trained(**before)
    assert trained(**after)[:2] == (expected, history)


def test_the_next_training_does_not_change_a_trained_network():
    digest, _, net = trained()
    trained(seed=1)
    assert weights_digest(net) == digest


def losses_of_a_network_that_hardly_learns(**config):
    _, history, _ = trained(learning_rate=1e-30, **config)
    return [epoch.train_loss for epoch in history.epochs]


def test_dropout_drops_different_units_in_each_epoch():
    assert len(set(losses_of_a_network_that_hardly_learns(model={"dropout": 0.5}))) == 3
    assert len(set(losses_of_a_network_that_hardly_learns())) == 1


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


def test_another_number_of_threads_in_the_same_process_is_refused():
    trained(epochs=1)
    with pytest.raises(PipelineError, match=r"train\.threads is 2.* with 1: use a new process"):
        use_threads(2)


def test_augmented_training_is_reproducible():
    augment = {"shift": 1.0, "rotation": 10.0, "scale": 0.1, "shear": 0.1, "elastic": 0.5, "flip": 0.5}
    digests = [trained(augment=augment, shuffle="every_epoch")[0] for _ in range(2)]
    assert digests[0] == digests[1] != trained(shuffle="every_epoch")[0]
