"""Findings: images worth looking at before a model is trained on them, listed by file."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.workspace import origin_of, write_csv
from pipeline.data.inspection import Inspection
from pipeline.data.near_duplicates import Near

_SPREADS = 5  # robust standard deviations from the median, above which a value is unusual
_LEAST_LEVELS = 1.0  # lower limit of the standard deviation of brightness, in levels
_TIMES_AREA, _TIMES_PROPORTION = 4, 2  # A size is unusual only from these factors on.


@dataclass(frozen=True)
class Finding:
    """An image, and why it is listed."""

    kind: str  # one of FINDINGS
    split: str
    index: int
    group: int | None = None  # shared by images of one kind that belong together
    value: str = ""


def equal_images(
    fingerprints: Mapping[str, NDArray[np.uint64]], labels: Mapping[str, NDArray[np.int32]]
) -> Iterator[Finding]:
    """Find images that occur more than once, within and across splits: conflicts if their labels differ.

    Args:
        fingerprints: By split, (n,) each; equal only for equal pixels.
        labels: By split, (n,) each.
    """
    splits = list(fingerprints)
    sizes = [len(fingerprints[split]) for split in splits]
    split_of = np.repeat(np.arange(len(splits)), sizes)
    index_of = np.concatenate([np.arange(size) for size in sizes])
    prints = np.concatenate([fingerprints[split] for split in splits])
    classes = np.concatenate([labels[split] for split in splits])
    _, first, group_of, counts = np.unique(prints, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(group_of, kind="stable")
    ends = np.cumsum(counts)
    several = np.flatnonzero(counts > 1)
    # In order of first occurrence.
    for number, group in enumerate(several[np.argsort(first[several])].tolist(), start=1):
        members = order[ends[group] - counts[group] : ends[group]]
        kind = "conflict" if len(np.unique(classes[members])) > 1 else "duplicate"
        for member in members.tolist():
            yield Finding(kind, splits[split_of[member]], int(index_of[member]), number)


def near_images(near: Near) -> Iterator[Finding]:
    """List each test image that is nearly equal to a training image, together with that image."""
    for number, (test, train, correlation) in enumerate(
        zip(near.test.tolist(), near.train.tolist(), near.correlation, strict=True), start=1
    ):
        for split, index in (("test", test), ("train", train)):
            yield Finding("near_duplicate", split, index, number, f"{correlation:.4f}")


def unusual_brightness(splits: Mapping[str, Inspection]) -> Iterator[Finding]:
    """Find images of one colour, and images much darker or brighter than the training images."""
    of_training = splits["train"].brightness
    middle = float(np.median(of_training))
    limit = _SPREADS * max(_spread(of_training, middle), _LEAST_LEVELS)
    for split, inspection in splits.items():
        levels = inspection.brightness
        is_plain, away = inspection.contrast == 0, np.abs(levels - middle)
        for index in _falling(away, is_plain | (away > limit)):
            kind = "one_colour" if is_plain[index] else "brightness"
            yield Finding(kind, split, index, value=f"{levels[index]:.1f}")


def unusual_sizes(sizes: Mapping[str, NDArray[np.int32]]) -> Iterator[Finding]:
    """Find pictures that were much larger, smaller, wider or taller than most before they were resized.

    Args:
        sizes: By split, (n, 2) each: the height and width of each picture.
    """
    logs = {split: np.log(of) for split, of in sizes.items()}
    every = np.concatenate(list(logs.values()))
    away = {split: np.zeros(len(of)) for split, of in sizes.items()}
    for sign, least in ((1, _TIMES_AREA), (-1, _TIMES_PROPORTION)):
        values = every[:, 0] + sign * every[:, 1]
        middle = float(np.median(values))
        limit = max(float(np.log(least)), _SPREADS * _spread(values, middle))
        for split, of in logs.items():
            away[split] = np.maximum(away[split], np.abs(of[:, 0] + sign * of[:, 1] - middle) / limit)
    for split, of in away.items():
        # Just the factor counts, however its logarithm was rounded.
        for index in _falling(of, of > 1 - 1e-9):
            height, width = sizes[split][index].tolist()
            yield Finding("size", split, index, value=f"{height}×{width}")


def _falling(values: NDArray[np.floating[Any]], chosen: NDArray[np.bool_]) -> list[int]:
    """Return the indices of the chosen values, the largest value first."""
    indices = np.flatnonzero(chosen)
    ordered: list[int] = indices[np.argsort(-values[indices], kind="stable")].tolist()
    return ordered


def _spread(values: NDArray[np.floating[Any]], middle: float) -> float:
    """Return the standard deviation of a normal distribution with the same median absolute deviation."""
    return 1.4826 * float(np.median(np.abs(values - middle)))


def write_findings(
    path: Path,
    found: Iterable[Finding],
    class_of: Callable[[Finding], str],
    names: Mapping[str, Sequence[str]] | None,
) -> None:
    """Write a CSV file with a row for each finding.

    The indices of the findings are those in data/raw; `names` are the files by train_names and test_names.
    """

    def row(each: Finding) -> tuple[object, ...]:
        name = names[f"{origin_of(each.split)}_names"][each.index] if names else ""
        return (each.kind, each.group, each.split, each.index, name, class_of(each), each.value)

    write_csv(path, ("finding", "group", "split", "index", "file", "class", "value"), map(row, found))
