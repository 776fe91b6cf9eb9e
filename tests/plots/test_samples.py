import numpy as np
import pytest
from matplotlib.image import imread

from pipeline.plots.samples import STYLE, draw
from pipeline.plots.style import drawing
from pipeline.plots.text import drawable


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


def test_a_long_name_does_not_widen_the_figure_and_dollars_are_no_formula(tmp_path):
    images, labels = np.zeros((2, 4), np.uint8), np.arange(2, dtype=np.int32)
    with drawing(STYLE):
        figure = draw(images, labels, (2, 2), [r"$\none$", "long " * 60])
        figure.savefig(tmp_path / "figure.png", bbox_inches="tight")
    assert imread(tmp_path / "figure.png").shape[1] < 1300


def test_names_that_the_font_lacks_are_shown_as_the_numbers_of_their_classes():
    names = ("Ñandú", "猫", "a\nb", "Жук", "柴犬 dog")
    assert drawable(names) == ("Ñandú", "class 1", "class 2", "Жук", "class 4")
    assert drawable(["a", "a "]) == ("a", "'a '")
