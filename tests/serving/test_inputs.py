"""The order of the inputs of `pipeline predict`, and where each is found."""

import numpy as np
import pytest
from in_thread import READER

from pipeline.config.section import ReaderSection
from pipeline.serving.inputs import in_chunks, items


def test_the_files_of_a_folder_are_in_natural_order_whatever_their_names(tmp_path):
    # ² is a digit, but not a decimal one.
    names = "2.png 10.png a01b10.png a1b9.png a1b10.png a.png a²3.png x²/1.png ²/1.png"
    ordered = names.split()
    for name in reversed(ordered):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [item.name for item in items([str(tmp_path)], ReaderSection(**READER))]
    assert found == [str(tmp_path / name) for name in ordered]


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (4, [1, 3]), (5, [1, 3, 1])])
def test_the_first_input_is_answered_before_the_others(count, sizes):
    assert [len(chunk) for chunk in in_chunks(range(count), 3)] == sizes


def found(path):
    """The errors of the items in a file, or what they have instead."""
    reader = ReaderSection(**READER | {"image_size": [1, 2]})
    return [item.error or item.content.tolist() for item in items([str(path)], reader)]


def test_pixels_are_whole_numbers_from_0_to_255(tmp_path):
    (tmp_path / "table").write_text("0,255\n0,256\n-1,0\n0,x\n0\n")
    first, *others, text, short = found(tmp_path / "table")
    assert first == [[0, 255]]
    assert others == 2 * ["has a pixel that is not from 0 to 255"]
    assert text.startswith("has a pixel that is not a whole number")
    assert short == "is text, and as CSV has 1 column; an image has 2 pixels"


@pytest.mark.parametrize("shape", [(2,), (2, 1), (1, 1, 1, 2)])
def test_an_array_of_another_shape_is_named_with_it(tmp_path, shape):
    np.save(tmp_path / "array.npy", np.zeros(shape, np.uint8))
    assert found(tmp_path / "array.npy")[0] == f"has the shape {shape}; it must be (1, 2) or (n, 1, 2)"
