"""What each distortion does to images for which the result is known."""

import numpy as np
import pytest

from pipeline.config.schema import AugmentSection
from pipeline.training.augment import augment

NOTHING = {"shift": 0.0, "rotation": 0.0, "scale": 0.0, "shear": 0.0, "elastic": 0.0, "flip": 0.0}


def distorted(images, shape, seed=0, **settings):
    return augment(images, shape, AugmentSection(**(NOTHING | settings)), np.random.default_rng(seed))


def noise(count=300, shape=(9, 7)):
    return np.random.default_rng(1).integers(0, 256, (count, int(np.prod(shape))), dtype=np.uint8)


def dots(count=2000, side=15):
    """One bright pixel in the middle of each image."""
    images = np.zeros((count, side, side), np.uint8)
    images[:, side // 2, side // 2] = 255
    return images.reshape(count, -1)


def centres(images, side=15):
    """(n, 2): the centre of brightness of each image, in pixels from the middle."""
    weights = images.reshape(-1, side, side).astype(float)
    axis = np.arange(side) - side // 2
    total = weights.sum((1, 2))
    return np.stack([weights.sum(2) @ axis, weights.sum(1) @ axis], axis=1) / total[:, None]


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (5, 4, 3)])
def test_without_augmentation_images_are_not_changed(shape):
    images = noise(shape=shape)
    np.testing.assert_array_equal(distorted(images, shape), images)


def test_a_shift_moves_up_to_its_limit_in_both_directions():
    moved = centres(distorted(dots(), (15, 15), shift=2.0))
    assert np.abs(moved).max() <= 2.01
    assert (moved.min(axis=0) < -1.7).all()
    assert (moved.max(axis=0) > 1.7).all()


@pytest.mark.parametrize("setting", [{"rotation": 40.0}, {"scale": 0.3}, {"shear": 0.3}])
def test_only_a_shift_moves_the_centre(setting):
    assert np.abs(centres(distorted(dots(), (15, 15), **setting))).max() < 0.01


def test_a_rotation_turns_up_to_its_limit():
    images = np.zeros((2000, 15, 15), np.uint8)
    images[:, 7, 13] = 255
    row, column = centres(distorted(images.reshape(2000, -1), (15, 15), rotation=30.0)).T
    angles = np.degrees(np.arctan2(row, column))
    assert 27 < np.abs(angles).max() < 33
    assert np.hypot(row, column) == pytest.approx(6, abs=0.4)


def test_scaling_and_shearing_move_pixels_away_from_the_centre():
    images = np.zeros((2000, 15, 15), np.uint8)
    images[:, 11, 11] = 255
    for setting in ({"scale": 0.2}, {"shear": 0.2}):
        moved = centres(distorted(images.reshape(2000, -1), (15, 15), **setting))
        assert np.abs(moved - 4).max() > 0.5
        assert np.abs(moved - 4).max() < 1.4


def test_an_elastic_distortion_moves_parts_differently_and_fills_with_black():
    bent = distorted(noise(), (9, 7), elastic=1.0)
    assert (bent != noise()).mean() > 0.5
    gone = distorted(np.full((50, 63), 200, np.uint8), (9, 7), shift=100.0)
    assert (gone == 0).mean() > 0.5


@pytest.mark.parametrize("shape", [(9, 7), (5, 4, 3)])
def test_a_flip_mirrors_its_share_of_the_images_from_left_to_right(shape):
    images = noise(1000, shape)
    mirrored = images.reshape(1000, *shape)[:, :, ::-1].reshape(images.shape)
    np.testing.assert_array_equal(distorted(images, shape, flip=1.0), mirrored)
    half = distorted(images, shape, flip=0.5)
    changed = (half != images).any(axis=1)
    np.testing.assert_array_equal(half[changed], mirrored[changed])
    assert changed.mean() == pytest.approx(0.5, abs=0.1)


def test_channels_move_together():
    grey = noise(shape=(9, 7, 1))
    colour = np.repeat(grey[..., None], 3, axis=2).reshape(len(grey), -1)
    everything = {"shift": 1.0, "rotation": 10.0, "scale": 0.1, "shear": 0.1, "elastic": 0.5}
    result = distorted(colour, (9, 7, 3), **everything).reshape(len(grey), 63, 3)
    np.testing.assert_array_equal(result[..., 0], distorted(grey, (9, 7, 1), **everything))
    np.testing.assert_array_equal(result[..., 0], result[..., 2])


def test_augmentation_depends_only_on_the_seed():
    one, same, other = (distorted(noise(), (9, 7), seed, shift=1.0, elastic=0.5) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
