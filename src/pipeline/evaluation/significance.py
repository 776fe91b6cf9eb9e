"""Whether one model is better than another on the very same images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class McNemar:
    """The images on which just one of two models is right, and how likely chance parts them so unevenly."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Test whether two models are equally often right, by the images on which they disagree.

    McNemar (1947), "Note on the sampling error of the difference between correlated proportions or
    percentages", in its exact form: of the images that just one gets right, equal models would share as
    coins fall, whose two-sided binomial p holds for few images as for many.

    Args:
        first: bool (n,), whether the first model is right on each image.
        second: the same for the second model.
    """
    # SciPy's statistics take half a second.
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    disagreements = only_first + only_second
    p = float(binomtest(only_first, disagreements).pvalue) if disagreements else 1.0
    return McNemar(only_first, only_second, p)
