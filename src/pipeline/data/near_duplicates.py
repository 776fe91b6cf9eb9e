"""Near-duplicates: test images that look like a training image, by a perceptual hash and then by the pixels.

The hash has a bit for each of the lowest frequencies of an image: whether the image has more of it than half
of the training images. Only images whose hashes have one of four quarters in common are compared, so that
not all pairs need to be; in a small data set all are.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Images = NDArray[np.uint8]

CORRELATION = 0.99  # minimum, of the pixels of near-duplicates; different 1s of MNIST reach 0.985
_BITS_APART = 4  # maximum, of 63; pairs with three or fewer are always found
_FREQUENCIES = 8  # along each side
_BANDS, _BAND_BITS = 4, 16
_AT_ONCE = 2**18  # pairs of hashes that are compared at once, about 100 bytes each
_MOST_PAIRS = 2 * 10**8  # maximum number of pairs whose hashes are compared
_MOST_CLOSE, _CLOSEST = 50_000, 20  # the same for pairs whose pixels are compared: in total, per test image
_FEW = 20_000  # pairs of images of which the pixels of all are compared, in a second or two


@dataclass(frozen=True)
class Hasher:
    """Computes the hashes of images."""

    image_shape: tuple[int, ...]
    # float32 (63,): the median of each frequency over the training images.
    thresholds: NDArray[np.float32]

    @classmethod
    def of(cls, sample: Iterable[Images], image_shape: tuple[int, ...]) -> "Hasher":
        """Create a hasher whose bits are set in half of the images of `sample`, uint8 (some, pixels) each."""
        found = [_frequencies(images, image_shape) for images in sample]
        return cls(image_shape, np.median(np.concatenate(found), axis=0))

    def hashes(self, images: Images) -> Hashes:
        """Compute the hashes, uint64 (n,), of images, uint8 (n, pixels)."""
        bits = _frequencies(images, self.image_shape) > self.thresholds
        return np.packbits(np.pad(bits, ((0, 0), (1, 0))), axis=1).view(">u8").astype(np.uint64).ravel()


@dataclass(frozen=True)
class Near:
    """Test images that look like a training image, the closest first."""

    test: NDArray[np.int64]  # (n,)
    train: NDArray[np.int64]  # (n,): the training image that is most similar to each
    correlation: NDArray[np.float64]  # (n,): the correlation of their pixels
    is_complete: bool  # whether all candidates were compared, within the limits above


def find(train: Hashes, test: Hashes, pixels: Callable[[str, NDArray[np.int64]], Iterable[Images]]) -> Near:
    """Find the near-duplicates of test images among training images; equal images are left out.

    Args:
        train: The hashes of the training images, (n,).
        test: The hashes of the test images, (m,).
        pixels: Yields the images of "train" or "test" with these indices, flat, in pieces.
    """
    if len(train) * len(test) <= _FEW:
        # The hash would miss some, such as smooth images whose finer frequencies are only noise.
        pairs, is_complete = np.indices((len(train), len(test))).reshape(2, -1).T, True
    else:
        pairs, is_complete = _candidates(train, test)
    # Sorted by training image, so that their file is read from start to end.
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    found = [np.empty(0)]
    for ours, theirs in zip(pixels("train", pairs[:, 0]), pixels("test", pairs[:, 1]), strict=True):
        found.append(np.where((ours == theirs).all(axis=1), 0, _correlation(ours, theirs)))
    correlation = np.concatenate(found)
    near = np.flatnonzero(correlation >= CORRELATION)
    near = near[np.lexsort((pairs[near, 1], -correlation[near]))]
    # Keep each test image once, with its closest training image, of equal ones the first.
    near = near[np.sort(np.unique(pairs[near, 1], return_index=True)[1])]
    return Near(pairs[near, 1], pairs[near, 0], correlation[near], is_complete)


def _candidates(train: Hashes, test: Hashes) -> tuple[NDArray[np.int64], bool]:
    """Return the pairs (n, 2) to compare by their pixels, and whether these are all with similar hashes."""
    pairs, is_complete = _close(train, test)
    apart = np.bitwise_count(train[pairs[:, 0]] ^ test[pairs[:, 1]])
    # Keep the closest few for each test image.
    pairs = pairs[np.lexsort((apart, pairs[:, 1]))]
    _, first, counts = np.unique(pairs[:, 1], return_index=True, return_counts=True)
    pairs = pairs[np.arange(len(pairs)) - np.repeat(first, counts) < _CLOSEST]
    is_complete = is_complete and len(pairs) <= _MOST_CLOSE
    apart = np.bitwise_count(train[pairs[:, 0]] ^ test[pairs[:, 1]])
    return pairs[np.argsort(apart, kind="stable")[:_MOST_CLOSE]], is_complete


def _close(train: Hashes, test: Hashes) -> tuple[NDArray[np.int64], bool]:
    """Return pairs (n, 2) of training and test images with similar hashes, and whether these are all."""
    found, left = [np.empty((0, 2), np.int64)], _MOST_PAIRS
    for band in range(_BANDS):
        ours, theirs = (_band(hashes, band) for hashes in (train, test))
        order = np.argsort(ours, kind="stable")
        ordered = ours[order]
        first, end = (np.searchsorted(ordered, theirs, side) for side in ("left", "right"))
        counts = end - first
        ends = np.cumsum(counts)
        begun = 0
        while begun < len(test):
            if left <= 0:
                return np.unique(np.concatenate(found), axis=0), False
            # As many test images as give about _AT_ONCE pairs, at least one.
            before = ends[begun] - counts[begun]
            stop = max(begun + 1, int(np.searchsorted(ends, before + _AT_ONCE)))
            some = counts[begun:stop]
            total = int(some.sum())
            at = np.arange(total) - np.repeat(np.cumsum(some) - some, some)
            pairs = np.stack(
                [order[np.repeat(first[begun:stop], some) + at], np.repeat(np.arange(begun, stop), some)], 1
            )
            apart = np.bitwise_count(train[pairs[:, 0]] ^ test[pairs[:, 1]])
            found.append(pairs[apart <= _BITS_APART])
            begun, left = stop, left - total
    return np.unique(np.concatenate(found), axis=0), True


def _band(hashes: Hashes, band: int) -> Hashes:
    return (hashes >> np.uint64(band * _BAND_BITS)) & np.uint64(2**_BAND_BITS - 1)


def _correlation(some: Images, others: Images) -> NDArray[np.float64]:
    """Return Pearson's correlations, (n,), of images, uint8 (n, pixels); 0 for an image of one colour."""
    a, b = (part - part.mean(axis=1, keepdims=True, dtype=np.float32) for part in (some, others))
    product, *norms = (np.einsum("ij,ij->i", x, y, dtype=np.float64) for x, y in ((a, b), (a, a), (b, b)))
    both = np.sqrt(norms[0] * norms[1])
    return np.asarray(np.divide(product, both, out=np.zeros(len(a)), where=both > 0))


def _frequencies(images: Images, image_shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the low frequencies of images, float32 (n, 63), whatever their brightness and contrast."""
    shaped = images.reshape(-1, *image_shape)
    grey = shaped.astype(np.float32) if shaped.ndim == 3 else shaped.mean(axis=3, dtype=np.float32)
    down, across = (_cosines(size) for size in image_shape[:2])
    found = (down @ (grey @ across.T)).reshape(len(grey), -1)[:, 1:]
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.float32(1e-6)))


@cache
def _cosines(size: int) -> NDArray[np.float32]:
    """Return the first rows of the discrete cosine transform, float32 (8, size)."""
    angles = np.pi * (2 * np.arange(size) + 1) * np.arange(_FREQUENCIES)[:, None] / (2 * size)
    return np.cos(angles).astype(np.float32)
