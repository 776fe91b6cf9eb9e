"""The predictions of evaluated runs, as they are in predictions.csv, and how to compare two of them."""

import csv
from pathlib import Path

import numpy as np

from pipeline.evaluation.significance import McNemar, mcnemar

# The label and the predicted class of each test image.
Predictions = tuple[tuple[str, str], ...]


def read_predictions(path: Path) -> Predictions:
    """Read predictions.csv.

    Raises:
        csv.Error: If a row is cut.
        KeyError: If a column is missing.
    """
    with path.open(encoding="utf-8", newline="") as file:
        # Strict: otherwise, a quote that is never closed would make one field of all that follows it.
        found = tuple((row["label"], row["predicted"]) for row in csv.DictReader(file, strict=True))
    if any(None in row for row in found):
        raise csv.Error("a row has no prediction")
    return found


def same_labels(one: Predictions, other: Predictions) -> bool:
    """Return whether the labels are the same, although classes may have been renamed in between."""
    pairs = {(label, renamed) for (label, _), (renamed, _) in zip(one, other, strict=False)}
    before, after = ({pair[side] for pair in pairs} for side in (0, 1))
    return len(one) == len(other) and len(before) == len(after) == len(pairs)


def mcnemar_of(one: Predictions, other: Predictions) -> McNemar:
    """Compare two models by their labels and predicted classes of the same test images."""
    first, second = (np.array([label == taken for label, taken in each], bool) for each in (one, other))
    return mcnemar(first, second)
