"""A part of the network is trained only from a later epoch on."""

import keras
import numpy as np
import pytest
from small_training import CLASSES, SHAPE, TRAIN, VALIDATION, settings

from pipeline.artifacts.model_file import weights_digest
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.loop import FineTune, fit


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


def test_a_part_is_trained_from_its_epoch_on_at_its_own_rate():
    before = two_parts().get_layer("backbone").get_weights()
    for epochs in (2, 3):
        net, history = tuned(FineTune(3, 0.1, thaw), epochs=epochs)
        after = net.get_layer("backbone").get_weights()
        same = [np.array_equal(a, b) for a, b in zip(after, before, strict=True)]
        assert all(same) == (epochs < 3)
    assert [epoch.learning_rate for epoch in history.epochs] == [0.01, 0.01, 0.001]
    # Each part of the training has its own schedule.
    _, history = tuned(FineTune(3, 0.1, thaw), schedule="cosine")
    assert [epoch.learning_rate for epoch in history.epochs] == pytest.approx([0.005, 0.0, 0.0005, 0.0])


def test_a_part_may_be_trained_from_the_second_epoch_on():
    _, history = tuned(FineTune(2, 0.1, thaw), epochs=3)
    assert [epoch.learning_rate for epoch in history.epochs] == [0.01, 0.001, 0.001]


# The last epoch, which is one of fine-tuning, and one that is never reached.
@pytest.mark.parametrize(("tuned_from", "ends_after"), [(4, 4), (6, 6), (9, 2)])
def test_early_stopping_does_not_skip_fine_tuning(tuned_from, ends_after):
    never_better = {"patience": 1, "monitor": "val_loss", "min_delta": 100.0}
    _, history = tuned(FineTune(tuned_from, 0.1, thaw), epochs=6, **never_better)
    assert (len(history.epochs), history.best_epoch) == (ends_after, 1)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_training_interrupted_around_fine_tuning_ends_with_the_same_weights(tmp_path, capsys, cut):
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
    assert tuple(seen) == tuple(history.epochs), "on_epoch gets the epochs before the interruption too"
    assert f"after epoch {cut}, from a checkpoint" in capsys.readouterr().out, "it must not start again"
