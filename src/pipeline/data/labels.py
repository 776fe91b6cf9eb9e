"""Labels as a source has them: numbers that are written as floats become whole ones."""

from collections.abc import Collection, Sequence
from typing import Any

from pipeline.errors import PipelineError


def without_points(labels: Sequence[Any], known: Collection[str]) -> Sequence[Any]:
    """0 for `0.0`, as pandas writes a column that once had a gap; all other labels as they are.

    Args:
        labels: numbers or texts.
        known: names of classes that are kept as they are, since an earlier version has pinned them.

    Raises:
        PipelineError: all are numbers, and some are not whole.
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
            f"its labels are numbers, and not all whole, such as {odd[0]}: classes are texts or whole numbers"
        )
    return [int(numbers[str(label)]) for label in labels]
