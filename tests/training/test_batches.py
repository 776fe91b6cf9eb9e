"""The order of the images, and their division into slices."""

import functools
import itertools
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.compose import compose
from pipeline.training.augment import augment
from pipeline.training.batches import gather, slices

CONF = Path(__file__).parents[2] / "conf"
SHAPE = (6, 6)
AUGMENT = {"shift": 1.0, "rotation": 10.0, "scale": 0.1, "shear": 0.1, "elastic": 0.5, "flip": 0.1}
NO_AUGMENT = dict.fromkeys(AUGMENT, 0.0)


@functools.cache
def composed():
    return compose(CONF, ["data=digits"]).train


def settings(**changed):
    section = composed()
    defaults = {"epochs": 3, "batch_size": 32}
    return type(section).model_validate(section.model_dump() | defaults | changed)


def images(count, pixels=36):
    """Images whose labels are their numbers."""
    made = np.random.default_rng(0).integers(0, 256, (count, pixels), dtype=np.uint8)
    return made, np.arange(count, dtype=np.int32)


def in_order(config):
    """As a backend lays out images, but for NumPy."""

    def lay_out(train, chosen, rng):
        images = gather(train[0], chosen.ravel())
        if rng:
            images = augment(images, SHAPE, config.augment, rng)
        return images.reshape(*chosen.shape, -1), train[1][chosen]

    return lay_out


def epochs_of(train, config, seed=0, first_epoch=1):
    """The slices of each epoch."""
    epochs = [[]]
    for part in slices(train, config, seed, first_epoch, in_order(config)):
        epochs[-1].append(part)
        if part.ends_epoch:
            epochs.append([])
    assert epochs.pop() == []
    return epochs


def order_of(epoch):
    return np.concatenate([part.batches[1].ravel() for part in epoch]).tolist()


@pytest.mark.parametrize(("count", "batch_size"), [(203, 32), (64, 32), (5, 32), (1, 1)])
def test_an_epoch_has_each_image_once_with_its_label_within_the_memory_limit(count, batch_size):
    train = images(count, 2**14)
    for epoch in epochs_of(train, settings(batch_size=batch_size, slice_megabytes=1)):
        assert sorted(order_of(epoch)) == list(range(count))
        for part in epoch:
            np.testing.assert_array_equal(part.batches[0], train[0][part.batches[1]])
            assert part.batches[0].nbytes <= 2**20
            assert part.batches[1].shape[1] == batch_size or part is epoch[-1]


# Two batches of 32 images of 16 KiB fill a megabyte.
@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (203, [(2, 32), (2, 32), (2, 32), (1, 11)]),
        (96, [(2, 32), (1, 32)]),
        (64, [(2, 32)]),
        (5, [(1, 5)]),
    ],
)
def test_a_slice_has_as_many_batches_as_fit_and_says_if_the_last_is_full(count, expected):
    [epoch] = epochs_of(images(count, 2**14), settings(epochs=1, slice_megabytes=1))
    assert [part.batches[1].shape for part in epoch] == expected
    assert [part.whole for part in epoch] == [size == 32 for _, size in expected]
    assert [part.ends_epoch for part in epoch] == [False] * (len(epoch) - 1) + [True]


def laid_out(count, taken=None, **config):
    """How many batches of 32 images of 32 KiB, which fill a megabyte, are laid out when `taken` are taken."""
    config, steps = settings(slice_megabytes=1, **config), []

    def lay_out(train, chosen, rng):
        steps.append(chosen)
        return train[0][chosen], train[1][chosen]

    upcoming = slices(images(count, 2**15), config, 0, 1, lay_out)
    for _ in itertools.islice(upcoming, taken):
        pass
    upcoming.close()  # Wait for the slice that is being prepared.
    return len(steps)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(96, [2, 3, 4, 5]), (100, [2, 4, 5, 5]), (40, [4, 4, 6, 6]), (20, [2, 3, 3])],
)
def test_one_slice_is_prepared_ahead_and_a_short_one_with_the_one_before_it(count, expected):
    taken = range(1, len(expected) + 1)
    assert [laid_out(count, number, shuffle="every_epoch") for number in taken] == expected


def test_equal_epochs_are_laid_out_once_if_they_fit_into_a_slice():
    assert laid_out(32, shuffle="once") == 1
    assert laid_out(33, shuffle="once") == 2 * 3
    assert laid_out(32, shuffle="every_epoch") == 3


def test_a_slice_holds_one_batch_if_that_alone_is_over_the_memory_limit():
    [epoch] = epochs_of(images(3, 2**20 + 1), settings(epochs=1, batch_size=1, slice_megabytes=1))
    assert [part.batches[1].shape[0] for part in epoch] == [1, 1, 1]


def test_shuffle_once_repeats_one_order_and_every_epoch_draws_a_new_one():
    once = [order_of(epoch) for epoch in epochs_of(images(203), settings(shuffle="once"))]
    each = [order_of(epoch) for epoch in epochs_of(images(203), settings(shuffle="every_epoch"))]
    assert once[0] == once[1] == once[2]
    assert len({tuple(order) for order in each}) == 3
    assert all(order != sorted(order) for order in once + each)


@pytest.mark.parametrize("augment", [NO_AUGMENT, AUGMENT])
def test_an_epoch_is_the_same_whether_or_not_those_before_it_were_run(augment):
    config = settings(shuffle="every_epoch", augment=augment)
    last = epochs_of(images(70), config)[2]
    alone = epochs_of(images(70), config, first_epoch=3)
    assert len(alone) == 1
    for part, same in zip(last, alone[0], strict=True):
        np.testing.assert_array_equal(part.batches[0], same.batches[0])
        np.testing.assert_array_equal(part.batches[1], same.batches[1])


def test_each_epoch_and_each_seed_distorts_differently_and_labels_stay():
    config, train = settings(shuffle="once", augment=AUGMENT), images(64)
    first, second, _ = epochs_of(train, config)
    other = epochs_of(train, config, seed=1)[0]
    assert order_of(first) == order_of(second)
    assert (first[0].batches[0] != second[0].batches[0]).any()
    assert sorted(order_of(other)) == sorted(order_of(first))
    assert (first[0].batches[0] != train[0][first[0].batches[1]]).any()


def mapped(tmp_path, made):
    np.save(tmp_path / "images.npy", made)
    return np.load(tmp_path / "images.npy", mmap_mode="r")


@pytest.mark.parametrize("shuffle", ["once", "every_epoch"])
def test_mapped_images_come_in_the_order_of_images_in_memory(tmp_path, shuffle):
    made, labels = images(1000, 2**14)
    config = settings(epochs=2, shuffle=shuffle)
    in_memory = epochs_of((made, labels), config)
    for epoch, same in zip(epochs_of((mapped(tmp_path, made), labels), config), in_memory, strict=True):
        for part, other in zip(epoch, same, strict=True):
            np.testing.assert_array_equal(part.batches[0], other.batches[0])
            np.testing.assert_array_equal(part.batches[1], other.batches[1])


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which pages of a file are in memory")
def test_memory_does_not_grow_with_the_data_that_are_mapped(tmp_path):
    def resident():
        status = Path("/proc/self/status").read_text()
        return 1024 * sum(map(int, re.findall(r"(?:RssFile|RssShmem):\s+(\d+)", status)))

    made, labels = mapped(tmp_path, np.zeros((4000, 2**14), np.uint8)), np.zeros(4000, np.int32)
    before = resident()
    config = settings(slice_megabytes=1)
    upcoming = slices((made, labels), config, 0, 1, in_order(config))
    grown = max(resident() - before for _ in upcoming)
    assert grown < made.nbytes / 4


def test_stopping_early_ends_the_thread_that_prepares_the_next_slice():
    config = settings(shuffle="every_epoch")
    upcoming = slices(images(64), config, 0, 1, in_order(config))
    next(upcoming)
    upcoming.close()
    assert list(upcoming) == []
