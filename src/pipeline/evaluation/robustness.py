"""Measure a model on changed test images: moved, turned, noisy, blurred, inverted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.onnx_file import Classifier
from pipeline.evaluation.metrics import wilson
from pipeline.evaluation.unlike import scores

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Robustness:
    """The results of a model on images that were changed in one way."""

    change: str
    images: int  # how many images it was measured on
    accuracy: float
    low: float  # of its 95 % interval
    high: float
    unlike: float | None  # the share called unlike the training images; None if the model can't tell


def _moved(images: Images, background: int, pixels: int) -> Images:
    """Move the images to the right and down."""
    moved = np.full_like(images, background)
    moved[:, pixels:, pixels:] = images[:, :-pixels, :-pixels]
    return moved


def _turned(images: Images, background: int, degrees: float) -> Images:
    """Turn the images about their centres by linear interpolation; pixels from outside are background."""
    height, width = images.shape[1:3]
    rows, columns = np.mgrid[:height, :width] - np.array([height - 1, width - 1]).reshape(2, 1, 1) / 2
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    # Coordinates in the padded image, which is one pixel larger on each side.
    top = (cosine * rows + sine * columns + (height - 1) / 2).clip(-1, height - 1e-6) + 1
    left = (cosine * columns - sine * rows + (width - 1) / 2).clip(-1, width - 1e-6) + 1
    padded = _padded(images, 1, mode="constant", constant_values=background)
    turned = np.zeros(images.shape)
    for down, right in product((0, 1), repeat=2):
        row, column = top.astype(int), left.astype(int)
        share = np.abs(1 - down - (top - row)) * np.abs(1 - right - (left - column))
        turned += padded[:, row + down, column + right] * share.reshape(
            height, width, *(images.ndim - 3) * [1]
        )
    return turned.round().astype(np.uint8)


def _noisy(images: Images, background: int, deviation: float) -> Images:
    noise = np.random.default_rng(0).normal(0, deviation, images.shape)
    return (images + noise).round().clip(0, 255).astype(np.uint8)


def _blurred(images: Images, background: int, pixels: int) -> Images:
    """Blur the images with a Gaussian, vertically, then horizontally; edge pixels are repeated outside."""
    reach = 3 * pixels
    bell = np.exp(-((np.arange(-reach, reach + 1) / pixels) ** 2) / 2)
    blurred: NDArray[np.float64] = images.astype(np.float64)
    height, width = images.shape[1:3]
    padded = _padded(blurred, reach, mode="edge")
    blurred = sum(share * padded[:, at : at + height] for at, share in enumerate(bell / bell.sum()))
    blurred = sum(share * blurred[:, :, at : at + width] for at, share in enumerate(bell / bell.sum()))
    return blurred.round().astype(np.uint8)


def _padded(images: NDArray[Any], pixels: int, **how: Any) -> NDArray[Any]:
    return np.pad(images, [(0, 0), 2 * (pixels,), 2 * (pixels,), *(images.ndim - 3) * [(0, 0)]], **how)


def _inverted(images: Images, background: int, _: float) -> Images:
    return 255 - images


def _as_they_are(images: Images, background: int, _: float) -> Images:
    return images


_CHANGES: Mapping[str, tuple[Callable[[Images, int, int], Images], int]] = {
    "none": (_as_they_are, 0),
    "moved by 1 pixel": (_moved, 1),
    "moved by 2 pixels": (_moved, 2),
    "turned by 15°": (_turned, 15),
    "turned by 30°": (_turned, 30),
    "noise, deviation 25 of 255": (_noisy, 25),
    "noise, deviation 75 of 255": (_noisy, 75),
    "blurred, deviation 1 pixel": (_blurred, 1),
    "inverted": (_inverted, 0),
}


def measure_robustness(
    classifier: Classifier, images: Images, labels: NDArray[np.int32]
) -> Sequence[Robustness]:
    """Measure the model on images that are changed in several ways; the unchanged images come first.

    There is at least one image, uint8 (n, *image_shape), with labels int (n,).
    """
    background = 255 if classifier.description.reader.background == "white" else 0
    smallest = min(images.shape[1:3])
    return [
        _measured(classifier, name, change(images, background, amount), labels)
        for name, (change, amount) in _CHANGES.items()
        if change is not _moved or amount < smallest
    ]


def _measured(classifier: Classifier, change: str, images: Images, labels: NDArray[np.int32]) -> Robustness:
    probabilities = classifier.probabilities(np.ascontiguousarray(images))
    right = int((probabilities.argmax(axis=1) == labels).sum())
    low, high = wilson(right, len(labels))
    unlike = classifier.description.unlike
    share = None
    if unlike:
        share = float((scores(unlike, images, probabilities) > unlike.threshold).mean())
    return Robustness(change, len(labels), right / len(labels), float(low), float(high), share)
