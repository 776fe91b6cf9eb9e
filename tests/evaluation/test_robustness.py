import re

import numpy as np
import pytest
from scipy import ndimage

from linear_model import linear_model
from pipeline.artifacts.onnx_file import load
from pipeline.evaluation import robustness
from pipeline.evaluation.robustness import measure_robustness

SHAPE = (8, 8)


def test_each_change_is_measured_on_the_same_images(tmp_path):
    """The model predicts the brighter side, so noise does not matter to it, and it is wrong on negatives."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300).astype(np.int32)
    images = np.zeros((300, *SHAPE), np.uint8)
    images[labels == 0, :, :3] = images[labels == 1, :, 4:7] = 150
    kernel = np.zeros((*SHAPE, 2))
    kernel[:, :4, 0] = kernel[:, 4:, 1] = 1
    path = linear_model(tmp_path / "model.onnx", kernel.reshape(-1, 2), image_shape=SHAPE)
    found = {row.change: row for row in measure_robustness(load(path), images, labels)}
    assert next(iter(found)) == "none"
    assert found["none"].accuracy == found["moved by 1 pixel"].accuracy == 1
    assert found["noise, deviation 75 of 255"].accuracy == 1
    assert found["moved by 2 pixels"].accuracy == pytest.approx((labels == 1).mean(), abs=0.6)
    assert found["inverted"].accuracy == 0
    assert all(row.low - 1e-9 <= row.accuracy <= row.high + 1e-9 for row in found.values())
    assert {row.unlike for row in found.values()} == {None}
    assert len(found) == 9


@pytest.mark.parametrize("shape", [(9, 12), (9, 12, 3)], ids=["grey", "rgb"])
def test_rotation_and_blur_equal_those_of_scipy(shape):
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
    # Except for rounding; SciPy treats pixels beside the edge as outside.
    turned = robustness._turned(images, 0, 20)
    expected = ndimage.rotate(images.astype(float), 20, (1, 2), reshape=False, order=1, mode="grid-constant")
    np.testing.assert_allclose(turned, expected, atol=0.51)
    for pixels in (1, 2):
        blurred = ndimage.gaussian_filter(
            images.astype(float), pixels, axes=(1, 2), mode="nearest", truncate=3
        )
        np.testing.assert_allclose(robustness._blurred(images, 0, pixels), blurred, atol=0.51)


def test_each_change_is_as_strong_as_its_name_says():
    for name, (_, amount) in robustness._CHANGES.items():
        assert re.findall(r"\d+", name)[:1] == ([str(amount)] if amount else []), name


def test_images_are_not_moved_by_their_whole_side(tmp_path):
    path = linear_model(tmp_path / "model.onnx", np.ones((10, 2)), image_shape=(2, 5))
    found = measure_robustness(load(path), np.zeros((3, 2, 5), np.uint8), np.zeros(3, np.int32))
    assert [row.change for row in found if "moved" in row.change] == ["moved by 1 pixel"]
