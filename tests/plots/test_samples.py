import numpy as np
import pytest

from pipeline.plots.samples import draw


@pytest.mark.parametrize("shape", [(8, 8), (6, 9, 1), (6, 9, 3), (6, 9, 4), (6, 9, 2)])
def test_each_class_gets_a_row_of_its_first_ten_images(shape):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (23, np.prod(shape)), dtype=np.uint8)
    labels = np.array([0] * 12 + [2] * 4 + [0] * 7, np.int32)
    figure = draw(images, labels, shape, ("cat", "none", "dog"))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "none", "dog"]
    drawn = axes.get_images()
    assert len(drawn) == 10 + 4
    first = images[0].reshape(shape)
    np.testing.assert_array_equal(
        np.asarray(drawn[0].get_array())[..., 0]
        if first.ndim == 3 and shape[2] >= 3
        else drawn[0].get_array(),
        first[..., 0] if first.ndim == 3 else first,
    )


def test_the_figure_of_a_thousand_classes_has_a_limited_height():
    figure = draw(np.zeros((1000, 4), np.uint8), np.arange(1000, dtype=np.int32), (2, 2), ["x"] * 1000)
    assert figure.get_size_inches()[1] < 40
