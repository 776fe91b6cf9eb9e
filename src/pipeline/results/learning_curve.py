"""The learning curve of a sweep over preprocess.train_fraction: would more images help, and how much?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.results.leaderboard import Leaderboard, Setting, label_of, text_of

KEY = "preprocess.train_fraction"
_FEWEST = 3  # shares through which a law is laid
_SHARES_OF_ONE = ("val_accuracy", "val_macro_f1")


@dataclass(frozen=True)
class Curve:
    """What was reached with each share of the training images, and the law that it follows.

    The error of n times the images is that of one time, times n to the power of `exponent`: a straight line
    where both axes are logarithmic.
    """

    objective: str
    label: str  # what else was set
    shares: tuple[float, ...]  # ascending
    errors: tuple[float, ...]  # the mean over the seeds; what is missing to 100 %, or the loss
    spreads: tuple[float | None, ...]  # the standard deviation over the seeds
    exponent: float | None  # None: too few shares, or one without an error
    at_one: float | None  # the law's error with all images
    scatter: float = 0.0  # the standard deviation of the errors' logarithms around the law

    def expected(self, share: float) -> float | None:
        """The error by the law."""
        if self.exponent is None or self.at_one is None:
            return None
        return self.at_one * float(share**self.exponent)

    @property
    def is_scattered(self) -> bool:
        """Whether the results are further from the law than what twice the images would bring by it.

        Then a forecast would say more of chance than of the images, and may be worse than what was reached.
        """
        return self.exponent is not None and 0 < -self.exponent * math.log(2) < self.scatter

    @property
    def text(self) -> str:
        """What twice the largest share is expected to bring, in a sentence; "" with too few shares."""
        if len(self.shares) < _FEWEST:
            return ""
        largest = self.shares[-1]
        twice = self.expected(2 * largest)
        if twice is None or self.exponent is None:
            perfect = self.shares[self.errors.index(min(self.errors))]
            return f"Twice the images: no forecast, since a share of {perfect:g} already leaves no error."
        images = "all images" if largest == 1 else f"a share of {largest:g}"
        now = f"{self.value(self.errors[-1])} with {images}"
        of = f" ({self.label})" if self.label else ""
        if self.exponent >= 0:
            return f"Twice the images: no better {self.objective} is expected than {now}{of}."
        if self.is_scattered:
            return (
                f"Twice the images: no forecast beside {now}{of}, since the results vary by more than twice "
                "the images would bring: more seeds, epochs or shares may tell."
            )
        return (
            f"Twice the images: {self.objective} {self.value(twice)} is expected, after {now}{of}; the error "
            f"goes with their number to the power of {self.exponent:.2f}."
        )

    def value(self, error: float) -> str:
        """What has this error, as people read it."""
        return text_of(self.objective, 1 - error if self.objective in _SHARES_OF_ONE else error)


def curves(board: Leaderboard) -> list[Curve]:
    """A curve for each choice of the other values, if the sweep is over shares of the training images."""
    objective = board.objectives[0]
    if KEY not in board.keys or objective == "parameters":
        return []
    groups: dict[str, list[tuple[float, Setting]]] = {}
    for setting in board.settings:
        if setting.mean(objective) is not None:
            others = {key: value for key, value in setting.differs.items() if key != KEY}
            # As conf/ has it, if an experiment among the values sets it.
            share = float(setting.differs.get(KEY, 1.0))
            groups.setdefault(label_of(others), []).append((share, setting))
    found = []
    for label, members in groups.items():
        members.sort(key=lambda member: member[0])
        if len(members) > 1:
            found.append(_curve(objective, label, members))
    return found


def _curve(objective: str, label: str, members: Sequence[tuple[float, Setting]]) -> Curve:
    shares = tuple(share for share, _ in members)
    means = [setting.mean(objective) for _, setting in members]
    errors = [1 - mean if objective in _SHARES_OF_ONE else mean for mean in means if mean is not None]
    spreads = tuple(setting.sd(objective) for _, setting in members)
    exponent = at_one = None
    scatter = 0.0
    if len(shares) >= _FEWEST and min(errors) > 0:
        exponent, intercept = np.polyfit(np.log(shares), np.log(errors), 1).tolist()
        at_one = math.exp(intercept)
        off = np.log(errors) - intercept - exponent * np.log(shares)
        scatter = math.sqrt(float(off @ off) / (len(shares) - 2))
    return Curve(objective, label, shares, tuple(errors), spreads, exponent, at_one, scatter)
