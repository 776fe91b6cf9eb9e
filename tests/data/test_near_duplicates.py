"""Near-duplicates are found by their hashes and then by their pixels, and the closest are named first."""

import numpy as np
import pytest
from scipy import fft

from pipeline.data import near_duplicates
from pipeline.data.near_duplicates import Hasher, find


@pytest.fixture(autouse=True)
def by_hash(monkeypatch):
    """Search by the hashes, however few images a test has."""
    monkeypatch.setattr(near_duplicates, "_FEW", 0)


def test_in_a_small_data_set_pairs_are_found_whose_hashes_are_noise(monkeypatch):
    monkeypatch.undo()
    rng = np.random.default_rng(0)
    smooth = np.stack([np.add.outer(5 * np.arange(20), down * np.arange(20)) for down in range(9)])
    images = {
        split: (smooth + rng.integers(0, 2, (9, 20, 20))).astype(np.uint8).reshape(9, -1)
        for split in ("train", "test")
    }
    hasher = Hasher.of([images["train"]], (20, 20))
    hashes = (hasher.hashes(images[split]) for split in ("train", "test"))
    near = find(*hashes, lambda split, at: [images[split][at]])
    assert sorted(near.test.tolist()) == list(range(9))
    assert near.is_complete


@pytest.mark.parametrize("shape", [(24, 20), (24, 20, 3)], ids=["grey", "rgb"])
def test_the_hash_compares_the_lowest_frequencies_of_the_cosine_transform(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    grey = image.astype(float) if image.ndim == 2 else image.mean(axis=2)
    lowest = fft.dctn(grey)[:8, :8].ravel()[1:]
    # The median of one image is that image.
    hasher = Hasher.of([image.reshape(1, -1)], shape)
    np.testing.assert_allclose(hasher.thresholds, lowest / np.linalg.norm(lowest), atol=1e-5)
    # It has no more of any frequency than itself.
    assert hasher.hashes(image.reshape(1, -1)).tolist() == [0]


@pytest.mark.parametrize(
    ("differ", "found"),
    [
        ((), True),
        ((0, 1, 2, 3), True),
        ((16, 48), True),
        ((0, 16, 32), True),
        ((15, 31, 62), True),
        ((0, 1, 2, 3, 4), False),
        ((0, 16, 32, 48), False),  # They have no quarter in common.
        ((15, 31, 47, 62), False),
    ],
)
def test_images_are_compared_if_their_hashes_differ_in_few_bits_and_not_in_each_quarter(differ, found):
    image = np.random.default_rng(0).integers(0, 255, 200, dtype=np.uint8)
    images = {"train": image[None], "test": image[None].copy()}
    images["test"][0, 0] += 1
    hashes = np.array([0], np.uint64), np.array([sum(2**bit for bit in differ)], np.uint64)
    near = find(*hashes, lambda split, at: [images[split][at]])
    assert (len(near.test) == 1, near.is_complete) == (found, True)


def nearby(rng, number, noise):
    """Return images that are one image with so much noise each, (n, 200)."""
    image = rng.integers(60, 190, 200)
    return np.clip(image + rng.normal(0, 1, (number, 200)) * np.reshape(noise, (-1, 1)), 0, 255).astype(
        np.uint8
    )


def test_near_duplicates_are_listed_with_the_closest_image_and_the_closest_pair_first():
    rng = np.random.default_rng(0)
    first, second = nearby(rng, 4, [0, 4, 2, 3]), nearby(rng, 4, [0, 1, 4, 2])
    images = {"test": np.stack([first[0], second[0]]), "train": np.concatenate([first[1:], second[1:]])}
    # A copy of the closest image: the earlier one is named.
    images["train"] = np.concatenate([images["train"], images["train"][[3]]])
    hashes = {"test": np.array([0, 2**63 - 1], np.uint64)}
    hashes["train"] = np.repeat(hashes["test"], [3, 4])
    near = find(hashes["train"], hashes["test"], lambda split, at: [images[split][at]])
    expected = [
        np.corrcoef(images["test"][test], images["train"][train])[0, 1] for test, train in ((1, 3), (0, 1))
    ]
    assert (near.test.tolist(), near.train.tolist()) == ([1, 0], [3, 1])
    np.testing.assert_allclose(near.correlation, expected, atol=1e-6)


def test_of_many_alike_the_ones_with_the_closest_hashes_are_compared():
    rng = np.random.default_rng(0)
    made = nearby(rng, 41, [0, *40 * [2]])
    made[40] = made[0]
    made[40, 0] += 1
    images = {"test": made[:1], "train": made[1:]}
    hashes = np.full(40, 7, np.uint64), np.zeros(1, np.uint64)  # three bits apart
    hashes[0][39] = 0
    near = find(*hashes, lambda split, at: [images[split][at]])
    assert near.train.tolist() == [39]


@pytest.mark.parametrize(
    ("at_once", "pieces"), [(1, 9 * [5]), (3, 9 * [5]), (12, [10, 10, 10, 10, 5]), (10_000, [45])]
)
def test_the_pairs_are_the_same_in_pieces_of_any_size(monkeypatch, at_once, pieces):
    rng = np.random.default_rng(0)
    images = {"test": nearby(rng, 9, 9 * [1]), "train": nearby(np.random.default_rng(0), 5, 5 * [1])}
    hashes = {split: np.zeros(len(of), np.uint64) for split, of in images.items()}
    compared = []

    def count(bits):
        compared.append(len(bits))
        return np.zeros(len(bits), np.uint8)

    monkeypatch.setattr("pipeline.data.near_duplicates._AT_ONCE", at_once)
    monkeypatch.setattr("pipeline.data.near_duplicates.np.bitwise_count", count)
    near = find(hashes["train"], hashes["test"], lambda split, at: [images[split][at]])
    assert compared[:-2] == 4 * pieces  # then all pairs together
    assert (sorted(near.test.tolist()), near.is_complete) == (list(range(9)), True)


@pytest.mark.parametrize(("most", "is_complete"), [(180, True), (176, True), (175, False)])
def test_the_search_is_complete_if_all_pairs_were_compared_however_close_to_the_limit(
    monkeypatch, most, is_complete
):
    # All of 5 times 9 pairs are compared in each of the four quarters, 5 at once.
    hashes = {"train": np.zeros(5, np.uint64), "test": np.zeros(9, np.uint64)}
    monkeypatch.setattr("pipeline.data.near_duplicates._AT_ONCE", 1)
    monkeypatch.setattr("pipeline.data.near_duplicates._MOST_PAIRS", most)
    near = find(hashes["train"], hashes["test"], lambda split, at: [np.zeros((len(at), 9), np.uint8)])
    assert near.is_complete == is_complete


@pytest.mark.parametrize(("most", "found"), [(3, [0, 1, 2]), (2, [1, 2])])
def test_of_too_many_alike_pairs_those_with_the_closest_hashes_are_compared(monkeypatch, most, found):
    rng = np.random.default_rng(0)
    images = {"train": rng.integers(0, 255, (3, 200), np.uint8)}
    images["test"] = images["train"][::-1] + np.eye(3, 200, dtype=np.uint8)
    # The first test image differs in two bits from the last training image, and so on.
    test = np.array([0, 0x00FF00FF00FF00FF, 0x7F00FF00FF00FF00], np.uint64)
    train = test[::-1] ^ np.array([1, 0, 3], np.uint64)
    asked = []

    def pixels(split, at):
        asked.append((split, at.tolist()))
        return [images[split][at]]

    monkeypatch.setattr("pipeline.data.near_duplicates._MOST_CLOSE", most)
    near = find(train, test, pixels)
    assert (sorted(near.test.tolist()), near.is_complete) == (found, most == 3)
    # The file of the training images is read from start to end.
    assert asked == [("train", [2 - at for at in reversed(found)]), ("test", found[::-1])]


def test_images_of_one_colour_are_no_near_duplicates():
    images = {"train": np.full((1, 200), 9, np.uint8), "test": np.full((1, 200), 10, np.uint8)}
    near = find(np.zeros(1, np.uint64), np.zeros(1, np.uint64), lambda split, at: [images[split][at]])
    assert near.test.tolist() == []


def test_when_all_images_look_alike_the_search_ends_and_says_so(monkeypatch):
    rng = np.random.default_rng(0)
    base = rng.integers(60, 190, 24 * 24)
    frames = np.clip(base + rng.normal(0, 2, (400, 24 * 24)), 0, 255).astype(np.uint8)
    hasher = Hasher.of([rng.integers(0, 256, (200, 24 * 24)).astype(np.uint8)], (24, 24))
    images = {"train": frames[:300], "test": frames[300:]}
    hashes = {split: hasher.hashes(of) for split, of in images.items()}

    def search():
        return find(hashes["train"], hashes["test"], lambda split, at: [images[split][at]])

    assert len(search().test) == 100
    assert search().is_complete
    monkeypatch.setattr("pipeline.data.near_duplicates._MOST_PAIRS", 1000)
    monkeypatch.setattr("pipeline.data.near_duplicates._AT_ONCE", 500)
    assert 0 < len(search().test) < 100
    assert not search().is_complete
