"""Pixels of any type become levels from 0 to 255, or are refused."""

import numpy as np
import pytest

from pipeline.data.pixels import as_levels, shape_of, without_one_channel
from pipeline.errors import PipelineError


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        (np.array([0, 7, 255], np.uint8), [0, 7, 255]),
        (np.array([0, 7, 255], np.int64), [0, 7, 255]),
        (np.array([0, 7, 255], np.float64), [0, 7, 255]),
        (np.array([0, 1, 1], np.int16), [0, 1, 1]),
        (np.array([0, 2], np.float32), [0, 2]),
        (np.array([0, 1, 255], np.float32) / 255, [0, 1, 255]),
        (np.array([0, 100, 254], np.float16) / 255, [0, 100, 254]),
        (np.array([False, True]), [0, 255]),
        (np.array([], np.float64), []),
    ],
)
def test_levels_fractions_and_booleans_become_levels(values, levels):
    found = as_levels(values, "a.npy")
    assert (found.dtype, found.tolist()) == (np.uint8, levels)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([-1, 7]), "has values from -1 to 7"),
        (np.array([0, 256]), "has values from 0 to 256"),
        (np.array([0.0, 7.5]), "has values from 0 to 7.5"),
        (np.array([0.335, 1.0]), "has values from 0.335 to 1"),
        (np.array([0.0, np.nan]), "has values that are not finite numbers"),
        (np.array(["7"]), "has the type <U1, which is not a type of pixels"),
    ],
)
def test_other_values_are_refused(values, reason):
    with pytest.raises(PipelineError, match=rf"a\.npy {reason}"):
        as_levels(values, "a.npy")


def test_flat_images_are_squares_grey_or_in_colour():
    assert [shape_of(pixels, "a.csv") for pixels in (1, 3, 784, 12)] == [
        (1, 1),
        (1, 1, 3),
        (28, 28),
        (2, 2, 3),
    ]
    for pixels in (2, 783, 24):
        with pytest.raises(
            PipelineError, match=f"a.csv has {pixels} pixels per image, which is not a square"
        ):
            shape_of(pixels, "a.csv")


def test_only_a_single_channel_is_dropped():
    shapes = [(2, 4, 5, 1), (2, 4, 5, 3), (2, 4, 1), (2, 4, 1, 1)]
    found = [without_one_channel(np.zeros(shape)).shape for shape in shapes]
    assert found == [(2, 4, 5), (2, 4, 5, 3), (2, 4, 1), (2, 4, 1)]
