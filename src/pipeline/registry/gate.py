"""The gate: the checks that a model must pass before users get it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import PromotionSection
from pipeline.console import percent, printable
from pipeline.evaluation.significance import CalibrationPair, fall, mcnemar, non_inferiority, show_p


@dataclass(frozen=True)
class Check:
    """One of the gate's checks, with what is required and what was found."""

    name: str
    required: str
    found: str
    passed: bool


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's predictions for the n test images."""

    name: str  # of the model's run
    classes: Sequence[str]
    labels: NDArray[np.int64]  # (n,), the indices of the true classes
    predicted: NDArray[np.int64]  # (n,), the indices of the predicted classes
    confidence: NDArray[np.float64]  # (n,), the probabilities of the predicted classes
    bins: int  # of the calibration error

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each prediction is right, bool (n,)."""
        equal: NDArray[np.bool_] = self.labels == self.predicted
        return equal


@dataclass(frozen=True)
class Facts:
    """What is known about the candidate besides its predictions."""

    status: str  # of its run in MLflow
    commit: str  # the digest, or "unknown"
    is_in_git: bool
    dirty: str  # "true", "false" or "unknown"
    has_patch: bool
    files: int  # number of files that were checked
    problems: Sequence[str]  # found in these files
    occasions: int  # number of trainings that gave these weights
    megabytes: float
    milliseconds: float | None  # for one image; None if not measured


@dataclass(frozen=True)
class Champion:
    """The version that users have now."""

    version: str
    predictions: Predictions | None  # None if it can't be compared
    reason: str = ""  # why it can't be compared
    evaluated_now: bool = False  # on the candidate's test images, because its own were different


def check(
    candidate: Predictions,
    facts: Facts,
    champion: Champion | None,
    slices: Mapping[str, NDArray[np.bool_]],
    settings: PromotionSection,
) -> list[Check]:
    """Run all checks, and return them in the order in which they are shown.

    The slices are the test images in each, by name, bool (n,).
    """
    return [
        Check("run", "finished and evaluated", facts.status.lower(), facts.status == "FINISHED"),
        _code(facts, settings),
        _files(facts),
        *_answers(candidate, champion, slices, settings),
        _at_most("size", settings.max_megabytes, facts.megabytes, "MB"),
        _at_most("latency", settings.max_milliseconds, facts.milliseconds, "ms"),
        *_reproduced(facts, settings),
    ]


def _code(facts: Facts, settings: PromotionSection) -> Check:
    required = {
        "clean": "a commit in git without changes",
        "explained": "a commit in git, changes recorded",
        "any": "anything",
    }[settings.code]
    where = "" if facts.is_in_git else ", not in this repository's git"
    changes = {"true": ", with changes", "false": ", clean"}.get(facts.dirty, ", changes unknown")
    if facts.dirty == "true":
        changes += " that are recorded" if facts.has_patch else " that are not recorded"
    known = facts.dirty == "false" or (settings.code == "explained" and facts.has_patch)
    passed = settings.code == "any" or (facts.is_in_git and known)
    found = f"{facts.commit[:8]}{where}{changes}"
    if facts.commit == "unknown":  # The model was restored from DVC's cache.
        found = "not recorded: MLflow does not know the training"
    return Check("code", required, found, passed)


def _files(facts: Facts) -> Check:
    found = facts.problems[0] if facts.problems else f"{facts.files} files as recorded"
    if not facts.files and not facts.problems:
        found = "no digest is recorded"
    return Check("files", "as recorded, in MLflow", found, bool(facts.files and not facts.problems))


def _answers(
    candidate: Predictions,
    champion: Champion | None,
    slices: Mapping[str, NDArray[np.bool_]],
    settings: PromotionSection,
) -> Iterator[Check]:
    if champion is None:
        yield _better_than_a_constant(candidate, settings)
        return
    if champion.predictions is None:
        yield Check("test images", f"the same as version {champion.version}", champion.reason, False)
        return
    yield Check(
        "test images",
        f"the same as version {champion.version}",
        "different: the champion was evaluated on these now" if champion.evaluated_now else "the same",
        True,
    )
    yield _accuracy(candidate, champion.predictions, settings)
    yield _calibration(candidate, champion.predictions, settings)
    yield _recall(candidate, champion.predictions, settings)
    for name, members in slices.items():
        yield _slice(name, members, len(slices), candidate, champion.predictions, settings)


def _better_than_a_constant(candidate: Predictions, settings: PromotionSection) -> Check:
    counts = np.bincount(candidate.labels, minlength=len(candidate.classes))
    most = int(counts.argmax())
    found = mcnemar(candidate.right, candidate.labels == most)
    return Check(
        "accuracy",
        f"better than always {printable(candidate.classes[most])} (p < {settings.level:g})",
        f"{_percent(candidate.right)} against {percent(counts[most] / counts.sum())} ({show_p(found.p)})",
        found.p < settings.level and found.only_first > found.only_second,
    )


def _accuracy(candidate: Predictions, champion: Predictions, settings: PromotionSection) -> Check:
    both = f"{_percent(candidate.right)} against {_percent(champion.right)}"
    if settings.require == "better":
        pair = mcnemar(candidate.right, champion.right)
        return Check(
            "accuracy",
            f"better than {champion.name} (p < {settings.level:g})",
            f"{both}, gains {pair.only_first:,}, loses {pair.only_second:,} ({show_p(pair.p)})",
            pair.p < settings.level and pair.only_first > pair.only_second,
        )
    found = non_inferiority(candidate.right, champion.right, settings.margin, settings.level)
    few = ""
    if not (passed := found.p < settings.level):
        # What two equal models that never disagree would show.
        every = np.ones_like(candidate.right)
        best = non_inferiority(every, every, settings.margin, settings.level)
        if best.p >= settings.level:
            least = (floor(round(-1000 * best.lower, 6)) + 1) / 1000
            few = f"; {len(every):,} images are too few for that: they can show {_points(least)} at best"
    return Check(
        "accuracy",
        f"less than {_points(settings.margin)} below {champion.name} (p < {settings.level:g})",
        f"{both}, at worst {100 * found.lower:+.2f} points ({show_p(found.p)}){few}",
        passed,
    )


def _calibration(candidate: Predictions, champion: Predictions, settings: PromotionSection) -> Check:
    found = CalibrationPair(
        (candidate.confidence, candidate.right), (champion.confidence, champion.right), candidate.bins
    )
    allowed = settings.max_calibration_rise
    large = found.new - found.old > allowed
    return Check(
        "calibration error",
        f"at most {allowed:g} more, or within chance",
        f"{found.new:.4f} against {found.old:.4f}" + _chance(found.p if large else 1.0),
        not large or found.p >= settings.level,
    )


def _recall(candidate: Predictions, champion: Predictions, settings: PromotionSection) -> Check:
    """Check the class whose recall fell most: of those that fell too far, or else of all."""
    falls = []
    present = [index for index in range(len(candidate.classes)) if (candidate.labels == index).any()]
    for index in present:
        members = candidate.labels == index
        fell, p = _fall(members, settings.max_recall_fall, len(present), candidate, champion)
        falls.append((p < settings.level, fell, p, index))
    counts, _, p, index = max(falls)
    members = candidate.labels == index
    return Check(
        "recall of classes",
        f"at most {_points(settings.max_recall_fall)} less for any, or within chance",
        f"{printable(candidate.classes[index])}: {_percent(candidate.right[members])} against "
        f"{_percent(champion.right[members])}{_chance(p)}",
        not counts,
    )


def _slice(
    name: str,
    members: NDArray[np.bool_],
    tests: int,
    candidate: Predictions,
    champion: Predictions,
    settings: PromotionSection,
) -> Check:
    _, p = _fall(members, settings.max_slice_fall, tests, candidate, champion)
    return Check(
        f"slice {name}",
        f"at most {_points(settings.max_slice_fall)} less, or within chance",
        f"{_percent(candidate.right[members])} against {_percent(champion.right[members])} of "
        f"{members.sum():,} images{_chance(p)}",
        p >= settings.level,
    )


def _fall(
    members: NDArray[np.bool_], allowed: float, tests: int, candidate: Predictions, champion: Predictions
) -> tuple[float, float]:
    """Return how far the accuracy on some images fell, and the p-value of that; 1 if the fall is allowed.

    The p-value is corrected for the number of `tests` (Bonferroni): of many classes, some always fall.
    """
    new, old = candidate.right[members], champion.right[members]
    fell = float(old.mean() - new.mean())
    return fell, min(1.0, fall(new, old) * tests) if fell > allowed else 1.0


def _at_most(name: str, limit: float, found: float | None, unit: str) -> Check:
    if found is None:
        return Check(name, f"at most {limit:g} {unit}", "not measured", False)
    return Check(name, f"at most {limit:g} {unit}", f"{found:.3g} {unit}", found <= limit)


def _reproduced(facts: Facts, settings: PromotionSection) -> Iterator[Check]:
    if settings.reproduced:
        found = f"trained {facts.occasions} times with its weights"
        yield Check("reproduced", "trained twice with the same weights", found, facts.occasions >= 2)


def _chance(p: float) -> str:
    """Show a p-value, if it decided the check."""
    return f" ({show_p(p)})" if p < 1 else ""


def _percent(right: NDArray[np.bool_]) -> str:
    return percent(right.mean())


def _points(share: float) -> str:
    """Return a difference of shares of one: "1 % below 97 %" could also mean 96.03 %."""
    return f"{100 * share:g} point{'' if share == 0.01 else 's'}"
