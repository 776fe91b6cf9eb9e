"""Divide the training images into those for training and those for validation."""

import hashlib
import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import PreprocessSection
from pipeline.errors import PipelineError

Indices = NDArray[np.int64]


def fingerprints_of(pieces: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint64]:
    """Compute a number for each image that is equal only for equal pixels.

    Args:
        pieces: Images, uint8 (some, ...) each, C-contiguous.

    Returns:
        uint64 (images,). With a million images, different ones get the same number in one of 40 million data
        sets.
    """
    digests = [hashlib.blake2b(image, digest_size=8).digest() for piece in pieces for image in piece]
    return np.frombuffer(b"".join(digests), np.uint64)


def divide(
    labels: NDArray[np.int32],
    settings: PreprocessSection,
    given: int,
    prints: Callable[[], NDArray[np.uint64]],
) -> tuple[Indices, Indices]:
    """Return the ascending indices of the training images and of the validation images.

    Args:
        labels: The labels of all images that are not for testing.
        settings: `preprocess`.
        given: How many of them, at the end, the source provides for validation.
        prints: Returns the fingerprint of each image; called only by the rule that needs them.

    Raises:
        PipelineError: If the rule can't be applied to these images.
    """
    everything = np.arange(len(labels))
    if settings.validation_split == "given":
        if not given:
            raise PipelineError(
                "The data set has no validation images (data.validation_images is 0): set "
                "preprocess.validation_split to hash, stratified or last."
            )
        return everything[: len(labels) - given], everything[len(labels) - given :]
    # Rounded as Keras does for its validation_split.
    boundary = math.floor(len(labels) * (1 - settings.validation_fraction))
    if boundary == len(labels):
        return everything, everything[boundary:]
    if settings.validation_split == "hash":
        chosen = _by_hash(labels, prints(), settings.validation_fraction)
        return np.flatnonzero(~chosen), np.flatnonzero(chosen)
    if settings.validation_split == "last":
        return everything[:boundary], everything[boundary:]
    # Importing sklearn takes more than a second, and only this rule needs it.
    from sklearn.model_selection import train_test_split

    try:
        train, validation = train_test_split(
            everything, train_size=boundary, stratify=labels, random_state=settings.seed
        )
    except ValueError as error:
        raise PipelineError(
            f"The images can't be split by preprocess.validation_split=stratified: {error}"
        ) from None
    return np.sort(train), np.sort(validation)


def _by_hash(labels: NDArray[np.int32], prints: NDArray[np.uint64], fraction: float) -> NDArray[np.bool_]:
    """Choose validation images by their pixels alone, independently of the other images.

    At least one image of each class is left for training, and if possible at least one image is chosen: early
    stopping needs it, and a tenth of a few images may be none.
    """
    chances = (prints >> np.uint64(11)).astype(np.float64) / 2.0**53
    chosen = chances < fraction
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        if chosen[own].all():
            # The image with the highest chance is for training, and so are its duplicates.
            chosen[prints == prints[own[np.argmax(chances[own])]]] = False
    for image in () if chosen.any() else np.argsort(chances, kind="stable"):
        copies = prints == prints[image]
        if np.isin(labels[copies], labels[~copies]).all():
            return np.asarray(copies)
    return np.asarray(chosen)


def kept(prints: NDArray[np.uint64], chosen: Indices, others: NDArray[np.uint64]) -> Indices:
    """Remove from `chosen` the duplicates of earlier images and of images in `others`.

    Indices in `chosen` are ascending; `others` are the fingerprints of images for validation and testing.
    """
    _, first = np.unique(prints[chosen], return_index=True)
    distinct = chosen[np.sort(first)]
    return distinct[~np.isin(prints[distinct], others)]


def share(labels: NDArray[np.int32], prints: NDArray[np.uint64], chosen: Indices, fraction: float) -> Indices:
    """Return a fraction of each class of `chosen`, ascending, at least one image; smaller are part of larger.

    The fingerprints determine the order of the images of a class.
    """
    parts = []
    for label in np.unique(labels[chosen]):
        own = chosen[labels[chosen] == label]
        ordered = own[np.argsort(prints[own], kind="stable")]
        parts.append(ordered[: max(1, round(fraction * len(own)))])
    return np.sort(np.concatenate(parts)) if parts else chosen
