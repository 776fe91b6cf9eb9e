"""Find images that are unlike the training images, by cheap properties and the model's confidence.

The properties of the training images have a mean and a covariance; the score of an image is its squared
Mahalanobis distance from the mean. The threshold is measured on images that the model was not trained on.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.onnx_file import BATCH, Classifier, Unlike

FALSE_ALARM_RATE = 0.01
_GRID = 4  # parts of an image along each side
_MOST = 5000  # training images that are used
_HELD_BACK = 5  # without held-out images, one in this number of training images takes their place
_DIGITS = 6


def measure(
    classifier: Classifier, train: NDArray[np.uint8], held_out: NDArray[np.uint8] | None = None
) -> Unlike:
    """Measure the properties of the training images, and the threshold.

    Args:
        classifier: The model.
        train: uint8 (n, *image_shape), the training images, of which some are used.
        held_out: uint8 (m, *image_shape), m > 0, images that the model was not trained on; a hundredth of
            them exceed the threshold, or none if there are too few to measure a hundredth. By default, some
            of the training images, whose properties are then not measured.
    """
    some = np.ascontiguousarray(train[:: -(-len(train) // _MOST)])
    if held_out is None:
        held_out = some[::_HELD_BACK]
        if len(some) > _HELD_BACK:
            # Images lie closer to a mean and a covariance that were measured on them than new images do.
            some = np.delete(some, slice(None, None, _HELD_BACK), axis=0)
    found = _properties(some, classifier.probabilities(some))
    mean, covariance = found.mean(axis=0), np.cov(found, rowvar=False)
    # The covariance is singular if, for example, the corners are always black.
    covariance += np.diag(1e-3 * np.diag(covariance) + 1e-6)
    # Of new values like n others, one in n + 1 is expected above the highest, and k in n + 1 above the k-th.
    rate = max(FALSE_ALARM_RATE, 1 / (len(held_out) + 1))
    unlike = Unlike(
        threshold=0.0,
        false_alarm_rate=_rounded([rate])[0],
        images=len(held_out),
        brightest=int(some.max()),
        mean=_rounded(mean),
        precision=_rounded(np.linalg.inv(covariance).ravel()),
    )
    found_scores = scores(unlike, held_out, classifier.probabilities(held_out))
    (threshold,) = _rounded([np.quantile(found_scores, 1 - rate, method="weibull")])
    return unlike.model_copy(update={"threshold": threshold})


def scores(
    unlike: Unlike, images: NDArray[np.uint8], probabilities: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Score how unlike the training images each image is; above `unlike.threshold` it is called unlike.

    Args:
        unlike: What `measure` returned.
        images: uint8 (n, *image_shape).
        probabilities: float32 (n, classes), the model's predictions.
    """
    found = np.empty(len(images))
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        away = _properties(images[part], probabilities[part]) - unlike.mean_array
        found[part] = (away @ unlike.precision_array * away).sum(axis=1)
    return found


def _properties(images: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return float64 (n, properties): brightness, contrast, edges, extremes, confidence, light by region."""
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
        # Log odds, within the resolution of single precision.
        np.log(sureness.clip(1e-6, 1 - 1e-6) / (1 - sureness).clip(1e-6)),
    ]
    rows, columns = (_starts(size) for size in levels.shape[1:])
    parts = np.add.reduceat(np.add.reduceat(levels, rows, axis=1), columns, axis=2)
    parts *= parts[0].size / levels[0].size
    return np.concatenate([np.stack(whole, axis=1), parts.reshape(len(levels), -1)], axis=1, dtype=np.float64)


def _mean(values: NDArray[Any]) -> NDArray[Any]:
    """Return the mean of each image, like NumPy's mean, which takes twice as long for a single image."""
    size = values.shape[1] * values.shape[2]
    mean: NDArray[Any] = np.add.reduce(values, axis=(1, 2)) / max(size, 1)
    return mean


@cache
def _starts(size: int) -> NDArray[np.int_]:
    """Return where the parts begin along a side."""
    return np.linspace(0, size, min(_GRID, size), endpoint=False).astype(int)


def _rounded(values: Iterable[float]) -> tuple[float, ...]:
    """Round to few enough digits that the last bits of sums, which differ between machines, do not matter."""
    return tuple(float(f"{value:.{_DIGITS}g}") for value in values)
