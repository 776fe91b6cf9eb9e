"""Which images are unlike those that a model was trained on, by cheap properties and the model's sureness.

The properties of the training images have a mean and a covariance; how far from the mean an image is, in
those terms, is its score. The threshold is measured on images that the model was not trained on.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.onnx_file import BATCH, Classifier, Unlike

FALSE_ALARM_RATE = 0.01
_GRID = 4  # parts of an image along each side
_MOST = 5000  # training images that are looked at
_DIGITS = 6


def measure(classifier: Classifier, train: NDArray[np.uint8], held_out: NDArray[np.uint8]) -> Unlike:
    """How to tell, measured.

    Args:
        classifier: the model.
        train: uint8 (n, *image_shape) of the training; some of them are looked at.
        held_out: uint8 (m, *image_shape), m > 0, that the model was not trained on; a hundredth of them
            exceed the threshold, or none where they are too few to tell a hundredth.
    """
    some = np.ascontiguousarray(train[:: -(-len(train) // _MOST)])
    found = _properties(some, classifier.probabilities(some))
    mean, covariance = found.mean(axis=0), np.cov(found, rowvar=False)
    # Corners that are always black vary by nothing.
    covariance += np.diag(1e-3 * np.diag(covariance) + 1e-6)
    # Above the highest of n is one in n + 1.
    (rate,) = _rounded([max(FALSE_ALARM_RATE, 1 / (len(held_out) + 1))])
    unlike = Unlike(
        threshold=0.0,
        false_alarm_rate=rate,
        images=len(held_out),
        brightest=int(some.max()),
        mean=_rounded(mean),
        precision=_rounded(np.linalg.inv(covariance).ravel()),
    )
    found_scores = scores(unlike, held_out, classifier.probabilities(held_out))
    (threshold,) = _rounded(np.quantile(found_scores, [1 if rate > FALSE_ALARM_RATE else 1 - rate]))
    return unlike.model_copy(update={"threshold": threshold})


def scores(
    unlike: Unlike, images: NDArray[np.uint8], probabilities: NDArray[np.float32]
) -> NDArray[np.float64]:
    """How unlike the training's each image is; an image above `unlike.threshold` is called so.

    Args:
        unlike: as measured.
        images: uint8 (n, *image_shape).
        probabilities: float32 (n, classes), of the model.
    """
    found = np.empty(len(images))
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        away = _properties(images[part], probabilities[part]) - unlike.mean_array
        found[part] = (away @ unlike.precision_array * away).sum(axis=1)
    return found


def _properties(images: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Float64 (n, properties): brightness and contrast, edges, extremes, where the light is, sureness."""
    levels = images.astype(np.float32) / 255
    if levels.ndim == 4:
        levels = levels.mean(axis=3)
    middle = _mean(levels)
    sureness = probabilities.max(axis=1)
    whole = [
        middle,
        np.sqrt(_mean(np.square(levels - middle[:, None, None]))),
        _mean(np.abs(levels[:, 1:] - levels[:, :-1])),
        _mean(np.abs(levels[:, :, 1:] - levels[:, :, :-1])),
        _mean(levels > 0.9),
        _mean(levels < 0.1),
        # Log odds, within what single precision tells apart.
        np.log(sureness.clip(1e-6, 1 - 1e-6) / (1 - sureness).clip(1e-6)),
    ]
    rows, columns = (_starts(size) for size in levels.shape[1:])
    parts = np.add.reduceat(np.add.reduceat(levels, rows, axis=1), columns, axis=2)
    parts *= parts[0].size / levels[0].size
    return np.concatenate([np.stack(whole, axis=1), parts.reshape(len(levels), -1)], axis=1, dtype=np.float64)


def _mean(values: NDArray[Any]) -> NDArray[Any]:
    """Of each image; as NumPy's own, which takes twice as long for a single image."""
    size = values.shape[1] * values.shape[2]
    mean: NDArray[Any] = np.add.reduce(values, axis=(1, 2)) / max(size, 1)
    return mean


@cache
def _starts(size: int) -> NDArray[np.int_]:
    """Where the parts begin along a side."""
    return np.linspace(0, size, min(_GRID, size), endpoint=False).astype(int)


def _rounded(values: Iterable[float]) -> tuple[float, ...]:
    """To so many digits that the last bits of sums, which differ between machines, change nothing."""
    return tuple(float(f"{value:.{_DIGITS}g}") for value in values)
