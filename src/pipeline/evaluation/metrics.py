"""Metrics of predictions: accuracy with its interval, likelihood, calibration, and metrics by class.

scikit-learn has most of them too, and tests compare with it; importing it takes longer than an evaluation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of a model for n labelled images.

    Args:
        classes: The names of the k classes.
        labels: int (n,), the indices of the true classes.
        scores: float32 (n, k), the probabilities as the model returned them; n is at least 1.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    scores: NDArray[np.float32]

    @cached_property
    def probabilities(self) -> Floats:
        """(n, k), the scores normalised again, since their float32 rows sum to one only approximately."""
        exact = self.scores.astype(np.float64)
        distributions: Floats = exact / exact.sum(axis=1, keepdims=True)
        return distributions

    @cached_property
    def predicted(self) -> Ints:
        """(n,), the indices of the most probable classes."""
        top: Ints = self.probabilities.argmax(axis=1)
        return top

    @cached_property
    def confidence(self) -> Floats:
        """(n,), the probabilities of the predicted classes."""
        top: Floats = self.probabilities.max(axis=1)
        return top

    @cached_property
    def probabilities_of_labels(self) -> Floats:
        """(n,), the probabilities of the true classes."""
        given: Floats = self.probabilities[np.arange(len(self.labels)), self.labels]
        return given

    @cached_property
    def losses(self) -> Floats:
        """(n,), the negative log-likelihoods of the true classes in nats; finite even for probability 0."""
        least = np.finfo(np.float64).eps  # as in scikit-learn's log_loss
        nats: Floats = -np.log(np.clip(self.probabilities_of_labels, least, 1 - least))
        return nats

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """(n,), whether the predicted class is the true one."""
        right: NDArray[np.bool_] = self.predicted == self.labels
        return right

    @cached_property
    def confusion(self) -> Ints:
        """(k, k), how many images of each true class (row) were taken for each class (column)."""
        classes = len(self.classes)
        pairs = self.labels.astype(np.int64) * classes + self.predicted
        counts: Ints = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
        return counts


@dataclass(frozen=True, eq=False)
class Calibration:
    """Confidence and accuracy in bins of equal width: (bins,) each, NaN for an empty bin."""

    counts: Ints
    confidence: Floats
    accuracy: Floats

    @property
    def error(self) -> float:
        """The expected calibration error: the bins' |accuracy - confidence|, weighted by their counts.

        Naeini, Cooper and Hauskrecht (2015), "Obtaining well calibrated probabilities using Bayesian
        binning"; for the top class as in Guo et al. (2017), "On calibration of modern neural networks".
        """
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(gaps * self.counts) / self.counts.sum())


def calibrate(predictions: Predictions, bins: int) -> Calibration:
    """Sort the predictions by confidence into `bins` intervals (low, high] that divide [0, 1] evenly."""
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.digitize(predictions.confidence, edges[1:-1], right=True)
    counts = np.bincount(bin_of, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Calibration(
            counts,
            np.bincount(bin_of, predictions.confidence, minlength=bins) / counts,
            np.bincount(bin_of, predictions.correct, minlength=bins) / counts,
        )


def wilson(right: Ints | int, of: Ints | int) -> tuple[Floats, Floats]:
    """Return the bounds of the 95 % score interval of a proportion, `right` out of `of`, elementwise.

    Wilson (1927), "Probable inference, the law of succession, and statistical inference". Unlike the
    normal approximation it stays within [0, 1] and has a width even if all or none are right.
    """
    z = 1.959963984540054  # The standard normal's 97.5 % quantile.
    share = np.divide(right, of)
    centre = share + z**2 / np.multiply(2, of)
    spread = z * np.sqrt(share * (1 - share) / of + z**2 / np.multiply(4, np.square(of)))
    scale = 1 + np.divide(z**2, of)
    return np.maximum((centre - spread) / scale, 0), np.minimum((centre + spread) / scale, 1)


def measure(predictions: Predictions, bins: int) -> dict[str, float]:
    """Compute the metrics of the predictions as plain, finite numbers.

    - accuracy, accuracy_low, accuracy_high: the share that is right, and its 95 % Wilson interval
    - nll: the mean negative log-likelihood of the true class, in nats
    - ece: the expected calibration error over `bins` bins
    - macro_f1: the mean F1 of the classes that occur among the labels or the predictions
    - errors: how many are wrong
    """
    low, high = wilson(int(predictions.correct.sum()), len(predictions.labels))
    return {
        "accuracy": float(predictions.correct.mean()),
        "accuracy_low": float(low),
        "accuracy_high": float(high),
        "nll": float(predictions.losses.mean()),
        "ece": calibrate(predictions, bins).error,
        "macro_f1": macro_f1(predictions),
        "errors": int((~predictions.correct).sum()),
    }


def macro_f1(predictions: Predictions) -> float:
    """Return the mean F1 of the classes that occur among the labels or the predictions."""
    _, _, f1, occurrences = _by_class(predictions)
    return float(f1[occurrences > 0].mean())


@dataclass(frozen=True)
class ClassMetrics:
    """How well one class is recognised; an undefined metric is 0."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int  # images of the class


def measure_classes(predictions: Predictions) -> list[ClassMetrics]:
    """Return the metrics of each class, in the order of the labels."""
    precision, recall, f1, _ = _by_class(predictions)
    columns = precision, recall, f1, predictions.confusion.sum(axis=1)
    return [
        ClassMetrics(name, float(precision), float(recall), float(f1), int(support))
        for name, precision, recall, f1, support in zip(predictions.classes, *columns, strict=True)
    ]


def is_unbalanced(support: Sequence[int]) -> bool:
    """Return whether the largest class has more than twice the images of the smallest.

    Accuracy then says little about the small classes.

    Args:
        support: The number of images of each class.
    """
    return max(support) > 2 * min(support)


def _by_class(predictions: Predictions) -> tuple[Floats, Floats, Floats, Ints]:
    """Return (k,) each: precision, recall, F1 (0 if undefined), and how often it is a label or predicted."""
    right, given, taken = (
        np.diag(predictions.confusion),
        predictions.confusion.sum(axis=1),
        predictions.confusion.sum(axis=0),
    )

    def share(part: Ints, whole: Ints) -> Floats:
        return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)

    return share(right, taken), share(right, given), share(2 * right, given + taken), given + taken
