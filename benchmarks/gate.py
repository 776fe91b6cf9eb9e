"""Simulate how often the gate of `pipeline promote` errs.

    python -m benchmarks.gate [--pairs 2000]

Draws pairs of simulated models whose true quality is known, runs the gate on each pair with the settings of
conf/promotion, and writes gate.json and gate.md next to this file. This takes a quarter of an hour on one
core. A test compares the tables of docs/trust.md with gate.json.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.common import REPOSITORY, save
from pipeline.config.compose import compose_each
from pipeline.config.schema import PromotionSection
from pipeline.evaluation.significance import mcnemar
from pipeline.registry.gate import Champion, Facts, Predictions, check

CLASSES = tuple("0123456789")
FACTS = Facts("FINISHED", "0" * 40, True, "false", False, 1, (), 1, 1.0, 1.0)
# Models of the same kind find the same images difficult. If the probability of classifying an image correctly
# has a Beta distribution whose parameters sum to 0.9, two models with 97.3 % disagree on 2.5 % of the images.
_SPREAD = 0.9


@dataclass(frozen=True)
class TestSet:
    """A test set, and how well models do on it."""

    name: str
    images: int
    accuracy: float
    margin: float


@dataclass(frozen=True)
class Truth:
    """How the candidate truly differs from the champion."""

    name: str
    wrong: float = 0.0  # how many more of the images it gets wrong, in units of the margin
    right: float = 0.0  # how many more of the images it gets right, as a fraction
    of_class: float = 0.0  # the fraction of one class that it loses
    too_little: float = 0.0  # by how much its confidence is too low
    certain: bool = False  # whether its confidence is always 1


SETS = (
    TestSet("10,000 images, 97.3 % right", 10_000, 0.973, 0.01),
    TestSet("360 images, 93 % right", 360, 0.93, 0.03),
)
TRUTHS = (
    Truth("as good"),
    Truth("worse by half the margin", wrong=0.5),
    Truth("worse by the margin", wrong=1.0),
    Truth("worse by twice the margin", wrong=2.0),
    Truth("better by 0.5 points", right=0.005),
    Truth("better by 1 point", right=0.01),
    Truth("as good, but loses 10 points of one class", of_class=0.10),
    Truth("as good, but loses 20 points of one class", of_class=0.20),
    Truth("as good, but claims 5 points too little confidence", too_little=0.05),
    Truth("as good, but is always certain", certain=True),
)


def pair(of: TestSet, truth: Truth, rng: np.random.Generator) -> tuple[Predictions, Predictions]:
    """Draw the answers of a candidate and a champion."""
    labels = rng.integers(0, len(CLASSES), of.images)
    chance = rng.beta(_SPREAD * of.accuracy, _SPREAD * (1 - of.accuracy), of.images)
    confidence = np.maximum(chance, 1 / len(CLASSES))
    champion, candidate = rng.random((2, of.images)) < chance
    candidate &= rng.random(of.images) >= truth.wrong * of.margin / of.accuracy
    candidate |= rng.random(of.images) < truth.right / (1 - of.accuracy)
    candidate &= (labels != 3) | (rng.random(of.images) >= truth.of_class)

    def judged(name: str, right: np.ndarray, confidence: np.ndarray) -> Predictions:
        predicted = np.where(right, labels, (labels + 1) % len(CLASSES))
        return Predictions(name, CLASSES, labels, predicted, confidence, 15)

    claimed = np.ones_like(confidence) if truth.certain else np.maximum(confidence - truth.too_little, 0.0)
    return judged("candidate", candidate, claimed), judged("champion", champion, confidence)


def shares(of: TestSet, truth: Truth, settings: PromotionSection, pairs: int) -> dict[str, float]:
    """Return how often the gate opens, and how often each check closes it, as fractions."""
    rng = np.random.default_rng([SETS.index(of), TRUTHS.index(truth)])
    settings = settings.model_copy(update={"margin": of.margin})
    counts = dict.fromkeys(("opens", "accuracy", "calibration error", "recall of classes", "better"), 0)
    for _ in range(pairs):
        candidate, champion = pair(of, truth, rng)
        closed = [
            found.name
            for found in check(candidate, FACTS, Champion("1", champion), {}, settings)
            if not found.passed
        ]
        counts["opens"] += not closed
        for name in closed:
            counts[name] += 1
        better = mcnemar(candidate.right, champion.right)
        counts["better"] += better.p < settings.level and better.only_first > better.only_second
    return {name: count / pairs for name, count in counts.items()}


def render(rows: dict[str, dict[str, dict[str, float]]], pairs: int, settings: PromotionSection) -> str:
    """Render the page."""
    lines = [
        f"{pairs:,} pairs of simulated models for each line; written by `make bench ONLY=gate`. "
        f"Two standard errors of a share of 5 % are {100 * 2 * (0.05 * 0.95 / pairs) ** 0.5:.1f} points.",
        "",
        f"Settings: level {settings.level:g}, max_calibration_rise {settings.max_calibration_rise:g} and "
        f"max_recall_fall {settings.max_recall_fall:g}. The last column is about accuracy alone.",
    ]
    for of in SETS:
        lines += [
            "",
            f"**{of.name}, margin {of.margin:g}**",
            "",
            "| the candidate is truly | gate opens | closed by accuracy | by calibration | by a class "
            "| passes `require: better` |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for truth, found in rows[of.name].items():
            cells = " | ".join(f"{100 * value:.1f} %" for value in found.values())
            lines.append(f"| {truth} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Simulate and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("--pairs", type=int, default=2000)
    pairs = parser.parse_args().pairs
    settings = next(compose_each(REPOSITORY / "conf", [[]])).promotion
    asked = [(of, truth) for of in SETS for truth in TRUTHS]
    with ProcessPoolExecutor() as processes:
        found = processes.map(partial(shares, settings=settings, pairs=pairs), *zip(*asked, strict=True))
        rows: dict[str, dict[str, dict[str, float]]] = {}
        for (of, truth), row in zip(asked, found, strict=True):
            rows.setdefault(of.name, {})[truth.name] = row
            print(f"{of.name}; {truth.name}: {row}", flush=True)
    results = {"pairs": pairs, "shares": rows}
    save("gate", results, render(rows, pairs, settings))


if __name__ == "__main__":
    main()
