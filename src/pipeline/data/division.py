"""Dividing: which training images train, and which are kept apart for validation."""

import hashlib
import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import PreprocessSection
from pipeline.errors import PipelineError

Indices = NDArray[np.int64]


def fingerprints_of(pieces: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint64]:
    """A number for each image, the same only for the same pixels.

    Args:
        pieces: images, each uint8 (some, ...), C-contiguous.

    Returns:
        uint64 (images,). Among a million images, two different ones look alike once in 40 million data sets.
    """
    digests = [hashlib.blake2b(image, digest_size=8).digest() for piece in pieces for image in piece]
    return np.frombuffer(b"".join(digests), np.uint64)


def divide(
    labels: NDArray[np.int32],
    settings: PreprocessSection,
    given: int,
    prints: Callable[[], NDArray[np.uint64]],
) -> tuple[Indices, Indices]:
    """The indices, ascending, of the training and of the validation images.

    Args:
        labels: of all images that are not for testing.
        settings: `preprocess`.
        given: how many of them, the last, the source itself has for validation.
        prints: gives the fingerprint of each image; only asked for by the rule that needs them.

    Raises:
        PipelineError: the rule can't be followed with these images.
    """
    everything = np.arange(len(labels))
    if settings.validation_split == "given":
        if not given:
            raise PipelineError(
                "The data set brings no validation images (data.validation_images is 0): set "
                "preprocess.validation_split to hash, stratified or last."
            )
        return everything[: len(labels) - given], everything[len(labels) - given :]
    # As Keras rounds its validation_split.
    boundary = math.floor(len(labels) * (1 - settings.validation_fraction))
    if boundary == len(labels):
        return everything, everything[boundary:]
    if settings.validation_split == "hash":
        chosen = _by_hash(labels, prints(), settings.validation_fraction)
        return np.flatnonzero(~chosen), np.flatnonzero(chosen)
    if settings.validation_split == "last":
        return everything[:boundary], everything[boundary:]
    # sklearn costs more than a second, which only this split need pay.
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
    """By the pixels alone, so that no other image moves one; of each class at least one image trains."""
    chances = (prints >> np.uint64(11)).astype(np.float64) / 2.0**53
    chosen = chances < fraction
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        if chosen[own].all():
            # With its duplicates.
            chosen[prints == prints[own[np.argmax(chances[own])]]] = False
    return np.asarray(chosen)


def kept(prints: NDArray[np.uint64], chosen: Indices, others: NDArray[np.uint64]) -> Indices:
    """Those of `chosen` that neither equal an earlier one of them nor are among `others`.

    Args:
        prints: the fingerprint of each image.
        chosen: indices into it, ascending.
        others: fingerprints of images for validation and testing.
    """
    _, first = np.unique(prints[chosen], return_index=True)
    distinct = chosen[np.sort(first)]
    return distinct[~np.isin(prints[distinct], others)]


def share(labels: NDArray[np.int32], prints: NDArray[np.uint64], chosen: Indices, fraction: float) -> Indices:
    """A share of each class of `chosen`, at least one image, ascending; a smaller share is part of a larger.

    Args:
        labels: of all images.
        prints: their fingerprints, by which the images of a class are ordered.
        chosen: indices of images.
        fraction: from above 0 to 1.
    """
    parts = []
    for label in np.unique(labels[chosen]):
        own = chosen[labels[chosen] == label]
        ordered = own[np.argsort(prints[own], kind="stable")]
        parts.append(ordered[: max(1, round(fraction * len(own)))])
    return np.sort(np.concatenate(parts)) if parts else chosen
