"""Test whether one model is better than another on the same images."""

from dataclasses import dataclass
from functools import cached_property
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray


def show_p(p: float) -> str:
    """Return a p-value as text, such as "p = 0.012"."""
    return "p < 1e-99" if p < 1e-99 else f"p = {p:.2g}"


@dataclass(frozen=True)
class McNemar:
    """How many images only one of two models gets right, and the p-value of McNemar's test."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Test whether two models are right equally often, using the images on which they disagree.

    McNemar (1947), "Note on the sampling error of the difference between correlated proportions or
    percentages", in its exact form: of the images that only one model gets right, equally good models get
    half each on average. The two-sided binomial p-value is valid for few images as well as for many.

    Args:
        first: bool (n,), whether the first model is right on each image.
        second: The same for the second model.
    """
    # Importing scipy.stats takes half a second.
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    disagreements = only_first + only_second
    p = float(binomtest(only_first, disagreements).pvalue) if disagreements else 1.0
    return McNemar(only_first, only_second, p)


@dataclass(frozen=True)
class NonInferiority:
    """How much worse than an old model a new one may be, as far as the images show."""

    lower: float  # one-sided bound of its accuracy minus the old one's, at the requested level
    p: float  # p-value of the hypothesis that the new model is worse by the margin


def non_inferiority(
    new: NDArray[np.bool_], old: NDArray[np.bool_], margin: float, level: float
) -> NonInferiority:
    """Test whether a model is worse than another one by `margin` or more; a small `p` shows that it is not.

    Tango (1998), "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17, 891-908: the score test of the hypothesis that the
    accuracies differ by -margin. With a margin of 0 its statistic is McNemar's, (b - c) / sqrt(b + c). Unlike
    a test that finds no difference, it cannot be passed just because there are few images.

    Args:
        new: bool (n,), whether the new model is right on each image; n at least 1.
        old: The same for the old model, which it would replace.
        margin: The margin in accuracy, within (0, 1).
        level: The level of the one-sided bound, within (0, 0.5).
    """
    # Importing these takes half a second less than scipy.stats.
    from scipy.optimize import brentq
    from scipy.special import ndtr, ndtri

    images = len(new)
    gained, lost = int((new & ~old).sum()), int((old & ~new).sum())
    found = (gained - lost) / images
    z = -float(ndtri(level))
    lowest = -1 + 1e-9

    def above(difference: float) -> float:
        return tango(gained, lost, images, difference) - z

    # The statistic falls as the assumed difference rises, and is 0 at the observed one.
    lower = float(brentq(above, lowest, found)) if found > lowest and above(lowest) > 0 else -1.0
    return NonInferiority(lower, float(ndtr(-tango(gained, lost, images, -margin))))


def tango(gained: int, lost: int, images: int, difference: float) -> float:
    """Compute Tango's score statistic, which is standard normal if the accuracies differ by `difference`.

    Args:
        gained: The number of images that only the new model gets right.
        lost: The number of images that only the old model gets right.
        images: The number of all images.
        difference: The assumed difference, the new model's accuracy minus the old one's, within (-1, 1).
    """
    # The most likely share of `lost` if the accuracies differ by `difference`.
    b = -(gained + lost) + (2 * images - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    share = (sqrt(max(b * b - 8 * images * c, 0.0)) - b) / (4 * images)
    variance = images * (2 * share + difference * (1 - difference))
    excess = gained - lost - images * difference
    if variance <= 0:
        return 0.0 if excess == 0 else inf if excess > 0 else -inf
    return excess / sqrt(variance)


def fall(new: NDArray[np.bool_], old: NDArray[np.bool_]) -> float:
    """Compute the one-sided p-value of McNemar's exact test that a new model is right less often.

    The arrays say whether the models are right on each image, bool (n,).
    """
    from scipy.special import bdtrc

    lost, gained = int((old & ~new).sum()), int((new & ~old).sum())
    return float(bdtrc(lost - 1, lost + gained, 0.5)) if lost else 1.0


_RESAMPLES = 500


class CalibrationPair:
    """The expected calibration errors of two models on the same images.

    Args:
        new: For the new model, the probabilities of the predicted classes, float (n,), and whether these are
            the true ones, bool (n,).
        old: The same for the old model, which it would replace.
        bins: The number of bins of equal width in confidence, as in `pipeline.evaluation.metrics.calibrate`.
    """

    def __init__(
        self,
        new: tuple[NDArray[np.float64], NDArray[np.bool_]],
        old: tuple[NDArray[np.float64], NDArray[np.bool_]],
        bins: int,
    ) -> None:
        edges = np.linspace(0, 1, bins + 1)[1:-1]
        self._bins, self._images = bins, len(new[0])
        # Each model has a row of bins; an image adds its confidence, minus 1 if it is right, to its bin.
        rows = [np.digitize(confidence, edges, right=True) for confidence, _ in (new, old)]
        self._cells = np.concatenate([rows[0], rows[1] + bins])
        self._excess = np.concatenate([confidence - correct for confidence, correct in (new, old)])
        self.new, self.old = map(float, self._errors(self._excess))

    @cached_property
    def p(self) -> float:
        """The p-value of the new model's error being the larger one, by a paired bootstrap.

        Efron and Tibshirani (1993), "An introduction to the bootstrap": images are drawn with replacement,
        the same ones for both models, from a fixed seed; p is the share of the draws in which the new model's
        error is not the larger one. The images themselves count as such a draw, as in Davison and Hinkley
        (1997), "Bootstrap methods and their application", since no number of draws shows that p is 0.
        """
        rng = np.random.default_rng(0)
        not_larger = 0
        for _ in range(_RESAMPLES):
            drawn = np.bincount(rng.integers(self._images, size=self._images), minlength=self._images)
            new, old = self._errors(self._excess * np.tile(drawn, 2))
            not_larger += bool(new <= old)
        return (1 + not_larger) / (1 + _RESAMPLES)

    def _errors(self, excess: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.bincount(self._cells, excess, minlength=2 * self._bins).reshape(2, self._bins)
        errors: NDArray[np.float64] = np.abs(sums).sum(axis=1) / self._images
        return errors
