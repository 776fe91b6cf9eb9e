"""pipeline add-data chooses the test images, and the choice is stable."""

import re
import shutil

import numpy as np
from pictures import save
from PIL import Image

from pipeline.data.names import read_pictures


def sides(clone) -> dict[str, str]:
    """Return {name of a picture: train or test} for the fetched data."""
    names = read_pictures(clone.workspace.raw).names
    return {name: split.partition("_")[0] for split, of in names.items() for name in of}


def test_a_fifth_of_each_class_is_for_testing_give_or_take_one_image(clone, tmp_path):
    for label, count in (("a", 3), ("b", 11), ("c", 47), ("d", 1)):
        for number in range(count):
            save(tmp_path / "uneven" / label / f"{number}.png", number + 1000 * ord(label))
    arrays = clone.added(tmp_path / "uneven")
    found = np.bincount(arrays["test_labels"], minlength=4)
    assert (np.abs(found - np.array([3, 11, 47, 1]) / 5) <= 1).all()
    assert found[3] == 0


def test_copies_of_an_image_are_in_the_same_split(clone, pets):
    for label in ("cat", "dog"):
        for number in range(10):
            for copy in range(3):
                shutil.copy(pets / label / f"{number}.png", pets / label / f"{number}-{copy}.png")
    lines = clone.add(pets, name="mine")
    assert "Duplicates: 60 images equal to another one, 0 in more than one split." in lines
    arrays = clone.fetch("mine")
    train, test = ({i.tobytes() for i in arrays[f"{split}_images"]} for split in ("train", "test"))
    assert train
    assert test
    assert not train & test


def test_new_images_do_not_move_others_between_training_and_test(clone, pets):
    clone.added(pets)
    before = sides(clone)
    for number in range(10, 60):
        save(pets / "cat" / f"{number}.png", 5000 + number)
    clone.add(pets, name="mine", update=True)
    clone.fetch("mine")
    after = sides(clone)
    assert len(after) == 80
    assert {name: after[name] for name in before} == before
    assert 2 <= sum(after[name] == "test" for name in after.keys() - before.keys()) <= 20


def test_the_same_image_in_two_classes_is_reported(clone, pets):
    shutil.copy(pets / "cat" / "1.png", pets / "dog" / "copied.png")
    lines = clone.add(pets)
    assert "Conflicts: 1 image in more than one class." in lines
    assert "  cat/1.png (cat) = dog/copied.png (dog)" in lines
    for copy in range(5):
        shutil.copy(pets / "cat" / "1.png", pets / "cat" / f"1-{copy}.png")
    # Copies of the first class don't hide that there is another.
    [said] = [line for line in clone.add(pets, force=True) if "dog/copied.png" in line]
    assert re.fullmatch(
        r"  cat/1\S* \(cat\) = dog/copied.png \(dog\)( = cat/1\S* \(cat\)){2} and 3 more", said
    )


def test_a_skipped_picture_does_not_move_others_between_training_and_test(clone, pets):
    first, pictures = clone.added(pets), read_pictures(clone.workspace.raw)
    Image.new("L", (5, 5)).save(pets / "0.png")
    second, with_stray = clone.added(pets, image_size="9x9", force=True), read_pictures(clone.workspace.raw)
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array)
    assert with_stray.names == pictures.names
    for name, sizes in pictures.sizes.items():
        np.testing.assert_array_equal(with_stray.sizes[name], sizes)
