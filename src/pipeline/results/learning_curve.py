"""Learning curves of a sweep over preprocess.train_fraction, which tell whether more images would help."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.results.leaderboard import Leaderboard, Setting, label_of, text_of

KEY = "preprocess.train_fraction"
_FEWEST = 3  # shares that the fit of a power law needs
_SHARES_OF_ONE = ("val_accuracy", "val_macro_f1")


@dataclass(frozen=True)
class Curve:
    """The error reached with each share of the training images, and the power law fitted to it.

    By the law, n times the images multiply the error by n to the power of `exponent`: a straight line if
    both axes are logarithmic.
    """

    objective: str
    label: str  # the other values of these settings
    shares: tuple[float, ...]  # ascending
    errors: tuple[float, ...]  # means over the seeds of one minus the score, or of the loss
    spreads: tuple[float | None, ...]  # standard deviations over the seeds
    exponent: float | None  # None if there are too few shares or one has no error
    at_one: float | None  # the law's error with all images
    scatter: float = 0.0  # the standard deviation of the logarithms of the errors around the law

    def expected(self, share: float) -> float | None:
        """Return the error that the law predicts for a share, or None if there is no law."""
        if self.exponent is None or self.at_one is None:
            return None
        return self.at_one * float(share**self.exponent)

    @property
    def is_scattered(self) -> bool:
        """Whether the results scatter around the law by more than what twice the images would bring.

        A forecast would then reflect chance more than the images, and could be worse than what was reached.
        """
        return self.exponent is not None and 0 < -self.exponent * math.log(2) < self.scatter

    @property
    def text(self) -> str:
        """A sentence that says what twice the largest share is expected to bring; "" for too few shares."""
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
                f"Twice the images: no forecast beyond {now}{of}, since the results vary by more than twice "
                "the images would bring: more seeds, epochs or shares may help."
            )
        return (
            f"Twice the images: {self.objective} {self.value(twice)} is expected, after {now}{of}; the error "
            f"goes with their number to the power of {self.exponent:.2f}."
        )

    def value(self, error: float) -> str:
        """Format the value of the objective that belongs to an error."""
        return text_of(self.objective, 1 - error if self.objective in _SHARES_OF_ONE else error)


def curves(board: Leaderboard) -> list[Curve]:
    """Return a curve for each choice of the other values; none if the sweep is not over train_fraction."""
    objective = board.objectives[0]
    if KEY not in board.keys or objective == "parameters":
        return []
    groups: dict[str, list[tuple[float, Setting]]] = {}
    for setting in board.settings:
        if setting.mean(objective) is not None:
            others = {key: value for key, value in setting.differs.items() if key != KEY}
            # A setting that names no share uses all images, the default in conf/.
            share = float(setting.differs.get(KEY, 1.0))
            groups.setdefault(label_of(others) if others else "", []).append((share, setting))
    result = []
    for label, members in groups.items():
        members.sort(key=lambda member: member[0])
        if len(members) > 1:
            result.append(_curve(objective, label, members))
    return result


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
