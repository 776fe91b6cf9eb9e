"""The human-readable report on what add-data found."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.console import count, printable
from pipeline.data.collect import Collected

_CLASSES, _NAMED = 30, 10  # how many classes, and other items, are listed one by one
_EQUAL = 4  # how many of the equal images of several classes are named
_LONGEST = 40  # characters of a name in a table


def split_table(classes: Sequence[str], labels: NDArray[np.int32], sides: NDArray[np.int8]) -> Iterator[str]:
    """Yield a table of the number of training, validation and test images of each class."""
    counts = np.zeros((len(classes), 3), np.int64)
    np.add.at(counts, (labels, sides), 1)
    columns = zip(("train", "validation", "test"), counts.T, strict=True)
    shown = [(side, column) for side, column in columns if column.any()]
    names = [_short(printable(name)) for name in classes[:_CLASSES]]
    width = max(len(name) for name in (*names, "total"))
    yield f"  {'class':<{width}}" + "".join(f"{side:>12}" for side, _ in shown)
    for at, name in enumerate(names):
        yield f"  {name:<{width}}" + "".join(f"{column[at]:>12,}" for _, column in shown)
    if len(classes) > _CLASSES:
        rest = counts[_CLASSES:].sum(axis=1)
        least, most = rest.min(), rest.max()
        span = count(most, "image") if least == most else f"{least:,} to {most:,} images"
        yield f"  and {len(rest):,} more {'class' if len(rest) == 1 else 'classes'} of {span}"
    yield f"  {'total':<{width}}" + "".join(f"{column.sum():>12,}" for _, column in shown)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def skipped(collected: Collected) -> Iterator[str]:
    """Yield lines about what is left out, and why."""
    for name in collected.empty[:_NAMED]:
        yield f"The class {name!r} has no images and is left out."
    if left_out := collected.rows.skipped:
        yield f"Skipped: {count(len(left_out), 'file')}."
        for name, reason in left_out[:_NAMED]:
            yield f"  {printable(name)} {reason}"
        if len(left_out) > _NAMED:
            yield f"  and {len(left_out) - _NAMED:,} more"


def duplicates(
    collected: Collected, classes: Sequence[str], labels: NDArray[np.int32], sides: NDArray[np.int8]
) -> Iterator[str]:
    """Yield lines about equal images, within and across splits, and about those in several classes."""
    _, first, group, sizes = np.unique(
        collected.digests, return_index=True, return_inverse=True, return_counts=True
    )
    if len(first) == len(labels):
        return
    order = np.argsort(group, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    across, conflicts = 0, []
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        members = order[start : start + size]
        across += len(np.unique(sides[members])) > 1
        if len(np.unique(labels[members])) > 1:
            conflicts.append(members)
    extra = len(labels) - len(first)
    yield f"Duplicates: {count(extra, 'image')} equal to another one, {across:,} in more than one split."
    if conflicts:
        yield f"Conflicts: {count(len(conflicts), 'image')} in more than one class."
        for members in conflicts[:_NAMED]:
            # One of each class comes first.
            _, first_of = np.unique(labels[members], return_index=True)
            others = np.delete(members, first_of)
            shown = [*members[first_of], *others][:_EQUAL]
            named = [
                f"{printable(collected.rows.names[index])} ({printable(classes[labels[index]])})"
                for index in shown
            ]
            more = f" and {len(members) - _EQUAL:,} more" if len(members) > _EQUAL else ""
            yield f"  {' = '.join(named)}{more}"
        if len(conflicts) > _NAMED:
            yield f"  and {len(conflicts) - _NAMED:,} more"
