"""Normalise the labels of a source: whole numbers that are written as floats become integers."""

from collections.abc import Collection, Sequence
from typing import Any

from pipeline.errors import PipelineError


def without_points(labels: Sequence[Any], known: Collection[str]) -> Sequence[Any]:
    """Replace labels such as `0.0` with 0 if all labels are numbers; otherwise return them unchanged.

    pandas writes integers like that if a value in their column was missing.

    If labels with a point are among the `known` classes, an earlier version has pinned them, and all labels
    are kept as they are.

    Raises:
        PipelineError: If all are numbers, but some are not whole.
    """
    distinct = {str(label) for label in labels}
    with_point = {label for label in distinct if "." in label}
    if not with_point or with_point & set(known):
        return labels
    try:
        numbers = {label: float(label) for label in distinct}
    except ValueError:
        return labels
    if odd := sorted(label for label, number in numbers.items() if not number.is_integer()):
        raise PipelineError(
            f"its labels are numbers, but not all whole, such as {odd[0]}: use texts or whole numbers"
        )
    return [int(numbers[str(label)]) for label in labels]
