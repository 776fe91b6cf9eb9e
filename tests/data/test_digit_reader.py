"""A photo of a digit on paper is read as the images of MNIST are."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from reading import encoded, settings

from pipeline.data.reader import PictureError, read_picture

DIGIT = settings(image_size=(28, 28), colour="grey", prepare="digit")


def seven() -> Image.Image:
    """Return a 7 as in MNIST: light on black, 20 pixels high, centred by mass."""
    image = Image.new("L", (112, 112))
    ImageDraw.Draw(image).line([(32, 20), (80, 20), (52, 92)], fill=255, width=9, joint="curve")
    return Image.fromarray(read_picture(encoded(image), DIGIT))


def on_paper(digit: Image.Image, paper=225, ink=40, at=(150, 30), page=(400, 300)) -> np.ndarray:
    """Return a photo of the digit: enlarged, anywhere on a page, in uneven light, with noise."""
    large = np.asarray(digit.resize((200, 200), Image.Resampling.BICUBIC)) / 255
    levels = np.full((page[1], page[0]), float(paper))
    levels[at[1] : at[1] + 200, at[0] : at[0] + 200] += (ink - paper) * large
    levels *= np.linspace(1, 0.85, page[0])
    levels += np.random.default_rng(0).normal(0, 4, levels.shape)
    return np.clip(levels, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("paper", "ink"), [(225, 40), (60, 250)])
@pytest.mark.parametrize("at", [(0, 0), (150, 30), (200, 100)])
def test_a_photo_of_a_digit_becomes_an_image_as_in_the_data_set(paper, ink, at):
    digit = seven()
    found = read_picture(encoded(Image.fromarray(on_paper(digit, paper, ink, at))), DIGIT)
    assert np.abs(found.astype(float) - np.asarray(digit)).mean() < 8


def test_a_small_digit_on_a_large_page_is_read_after_the_page_was_reduced():
    photo = Image.fromarray(on_paper(seven(), at=(500, 100), page=(1024, 400)))
    found = read_picture(encoded(photo), DIGIT)
    assert np.abs(found.astype(float) - np.asarray(seven())).mean() < 8
    reduced = photo.resize((512, 200), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(found, read_picture(encoded(reduced), DIGIT))
    assert read_picture(encoded(photo.resize((3000, 1))), DIGIT).any()


@pytest.mark.parametrize(
    ("size", "box"),
    [((28, 28), 20), ((28, 40), 20), ((40, 28), 20), ((16, 16), 11), ((15, 15), 15), ((8, 24), 8)],
)
def test_a_digit_fills_twenty_of_28_pixels_and_a_small_image_to_the_border(size, box):
    image = Image.new("L", (100, 120))
    ImageDraw.Draw(image).rectangle((30, 20, 59, 79), fill=255)  # twice as high as wide
    found = read_picture(encoded(image), settings(image_size=size, colour="grey", prepare="digit"))
    rows, columns = (np.flatnonzero(found.any(axis=axis)) for axis in (1, 0))
    assert found.shape == size
    assert (len(rows), len(columns)) == (box, round(box / 2))
    assert set(found.ravel()) == {0, 255}


def test_dirt_far_from_the_digit_is_ignored():
    photo = on_paper(seven(), at=(0, 0))
    clean = read_picture(encoded(Image.fromarray(photo)), DIGIT)
    photo[290:293, 390:393] = 0
    np.testing.assert_array_equal(read_picture(encoded(Image.fromarray(photo)), DIGIT), clean)


def test_an_image_of_the_data_set_is_not_changed():
    digit = seven()
    np.testing.assert_array_equal(read_picture(encoded(digit), DIGIT), np.asarray(digit))


@pytest.mark.parametrize(("shift", "axis"), [(-2, 0), (-2, 1), (2, 1), (3, 1)])
def test_an_image_off_the_centre_is_moved_there(shift, axis):
    moved = np.roll(np.asarray(seven()), shift, axis)
    found = read_picture(encoded(Image.fromarray(moved)), DIGIT)
    assert (
        np.abs(found.astype(float) - np.asarray(seven())).mean()
        < 8
        < np.abs(moved - found.astype(float)).mean()
    )


@pytest.mark.parametrize(("side", "is_changed"), [(18, True), (19, False), (20, False), (21, True)])
def test_an_image_of_another_size_of_digit_is_changed(side, is_changed):
    image = np.zeros((28, 28), np.uint8)
    begin = 14 - side // 2
    image[begin : begin + side, 10:18] = 200
    found = read_picture(encoded(Image.fromarray(image)), DIGIT)
    assert (found != image).any() == is_changed


@pytest.mark.parametrize("ink", [0, 255])
def test_ink_on_a_transparent_background_is_read(ink):
    alpha = seven().resize((200, 200))
    drawn = Image.merge("LA", (Image.new("L", alpha.size, ink), alpha))
    found = read_picture(encoded(drawn), DIGIT)
    assert np.abs(found.astype(float) - np.asarray(seven())).mean() < 8


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("size", [(50, 50), (28, 28)])
def test_an_empty_page_is_refused(level, size):
    with pytest.raises(PictureError, match="is blank"):
        read_picture(encoded(Image.new("L", size, level)), DIGIT)


def test_a_digit_in_colour_has_three_equal_channels():
    found = read_picture(encoded(seven()), settings(image_size=(28, 28), prepare="digit"))
    np.testing.assert_array_equal(found, np.repeat(np.asarray(seven())[:, :, None], 3, axis=2))
