"""Collecting: the rows of a source become the raw arrays, in one order and split by one rule everywhere."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.data.arrays import Arrays, Chosen
from pipeline.data.batches import Batch, Listing, LocalSource, update_command
from pipeline.data.decode import DIGEST_BYTES, Rows, decode
from pipeline.data.labels import without_points
from pipeline.data.layout import arrange, natural_order
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection

_SPLITS = ("train", "validation", "test")
Source = TypeVar("Source", bound=LocalSource)
Batches = Callable[[Listing], Iterator[Batch]]


@dataclass
class Collected:
    """All images of a source with their classes and splits, before test images are chosen."""

    rows: Rows
    # Names of the classes that have images, in the source's order, and of those that have none.
    classes: tuple[str, ...]
    empty: tuple[str, ...]
    # What the source calls those that have images, if these are numbers.
    numbers: tuple[str, ...] | None
    labels: NDArray[np.int32]  # into classes
    splits: NDArray[np.int8]  # into train, validation, test; -1: the source does not say
    digests: NDArray[np.void]
    # Whether the source is a set of files, whose order means nothing.
    is_set: bool
    skipped: list[tuple[str, str]]
    description: str

    @property
    def chances(self) -> NDArray[np.float64]:
        """For each image a number in [0, 1) that only depends on its pixels."""
        first = self.digests.view(">u8").reshape(len(self.digests), -1)[:, 0]
        return (first >> np.uint64(11)).astype(np.float64) / 2.0**53


def collect(batches: Batches, source: LocalSource, data: "DataSection", *, fresh: bool = False) -> Collected:
    """Read a source whole.

    Args:
        batches: what its images are read by.
        source: its settings.
        data: has the reader, and the names of the classes.
        fresh: whether `data` does not know the classes yet.

    Raises:
        PipelineError: a picture or a label can't be read, or the files are laid out in no known way.
    """
    listing = Listing(total=source.images)
    rows = decode(batches(listing), data.reader, listing, skip=source.unreadable == "skip", what=source.path)
    skipped, description = rows.skipped, ""
    splits = [-1 if split is None else _SPLITS.index(split) for split in rows.splits]
    is_set = bool(rows.labels) and rows.labels[0] is None
    labels: Sequence[Any] = rows.labels if is_set else without_points(rows.labels, data.classes)
    if is_set:
        layout = arrange(rows.names, listing, data.classes)
        description = layout.description
        skipped = skipped + list(layout.unplaced.items())
        kept = [index for index, name in enumerate(rows.names) if name in layout.places]
        rows.keep(np.array(kept, np.int64))
        places = [layout.places[name] for name in rows.names]
        labels = [place.label for place in places]
        splits = [-1 if place.split is None else _SPLITS.index(place.split) for place in places]
        classes: tuple[str, ...] = layout.classes
    elif listing.classes is not None:
        classes = listing.classes
    else:
        classes = natural_order({str(label) for label in labels})
    used = {str(label) for label in labels}
    called = tuple(name for name in classes if name in used)
    is_numbered = bool(labels) and not isinstance(labels[0], str) and listing.classes is None
    return Collected(
        rows,
        _named(called, source, data, is_numbered and not fresh),
        tuple(name for name in classes if name not in used),
        called if is_numbered else None,
        _numbered(labels, called),
        np.asarray(splits, np.int8),
        np.frombuffer(rows.digests, f"V{DIGEST_BYTES}"),
        is_set,
        skipped,
        description,
    )


def _named(
    called: tuple[str, ...], source: LocalSource, data: "DataSection", by_number: bool
) -> tuple[str, ...]:
    """The names in data.classes of what the source calls its classes."""
    if source.labels is not None:
        names = dict(zip(source.labels, data.classes, strict=False))
    elif by_number:
        names = {str(number): name for number, name in enumerate(data.classes)}
    else:
        return called
    return tuple(names.get(name, name) for name in called)


def _numbered(labels: Sequence[Any], classes: Sequence[str]) -> NDArray[np.int32]:
    number = {name: index for index, name in enumerate(classes)}
    return np.array([number[str(label)] for label in labels], np.int32)


def load(batches: Batches, source: LocalSource, data: "DataSection") -> Arrays:
    """The raw arrays of a source, whose images stay in a temporary file.

    Args:
        batches: what its images are read by.
        source: its settings; its `images` are pinned, `test_below` chooses the test images.
        data: names the classes, and how many validation images the source brings.

    Raises:
        PipelineError: as `collect` does, or the source has other images or classes than are pinned.
    """
    collected = collect(batches, source, data)
    found = len(collected.labels)
    again = f"`{update_command(source.path, data.name)}` says what changed and pins it"
    if source.images is not None and found != source.images:
        raise PipelineError(
            f"{source.path} has {found:,} images now, but {source.images:,} are pinned: {again}"
        )
    arrays = arranged(collected, data.classes, source.test_below, again)
    given = int((collected.splits == 1).sum())
    if given != data.validation_images:
        raise PipelineError(
            f"{source.path} has {given:,} validation images, but data.validation_images is "
            f"{data.validation_images:,}: {again}"
        )
    return arrays


def loader(
    batches: "Callable[[Source, DataSection, Path, Listing], Iterator[Batch]]",
) -> "Callable[[Source, DataSection, Path], Arrays]":
    """The `load` of a source whose images `batches` gives in pieces."""
    return lambda source, data, home: load(lambda listing: batches(source, data, home, listing), source, data)


def arranged(
    collected: Collected, classes: Sequence[str], test_below: Sequence[float] | None, again: str = ""
) -> Arrays:
    """Choose and order: training images, then validation images that the source brings; test images.

    Args:
        collected: what was read.
        classes: their names in the order of the labels.
        test_below: per class, which images are for testing; None: those that the source says.
        again: what mends a class that is not in `classes`.

    Raises:
        PipelineError: the source has other classes, or no test images.
    """
    if stray := [name for name in collected.classes if name not in set(classes)]:
        raise PipelineError(
            f"it has the class {stray[0]!r}, which data.classes does not name: {again or 'add it there'}"
        )
    number = np.array([list(classes).index(name) for name in collected.classes], np.int32)
    labels = number[collected.labels]
    is_test = collected.splits == 2
    if test_below is not None:
        if len(test_below) != len(classes):
            raise PipelineError(
                f"test_below has {len(test_below)} numbers for {len(classes)} classes: {again}"
            )
        is_test |= (collected.splits != 1) & chosen_by_digest(collected, labels, test_below)
    order = np.arange(len(labels))
    if collected.is_set:
        # By content: the names and the order of files mean nothing, and the last tenth is a random one.
        order = np.lexsort((labels, *np.flip(collected.digests.view(">u8").reshape(len(labels), -1).T, 0)))
    last = collected.splits[order] == 1
    train = np.concatenate([order[~is_test[order] & ~last], order[~is_test[order] & last]])
    offsets = np.asarray(collected.rows.offsets, np.int64)
    names, sizes = collected.rows.names, np.asarray(collected.rows.sizes, np.int32).reshape(-1, 2)
    found: dict[str, Any] = {}
    for split, indices in (("train", train), ("test", order[is_test[order]])):
        found[f"{split}_images"] = Chosen(collected.rows.file, collected.rows.shape, offsets[indices])
        found[f"{split}_labels"] = labels[indices]
        if collected.is_set:
            found[f"{split}_names"] = [names[index] for index in indices]
            found[f"{split}_sizes"] = sizes[indices]
    return found


def chosen_by_digest(
    collected: Collected, labels: NDArray[np.int32], below: Sequence[float]
) -> NDArray[np.bool_]:
    """Whether each image is for testing: by its pixels and class alone, so that no other image moves it.

    Of images that are equal, the first class decides for all.
    """
    limits = np.asarray(below)[labels]
    _, equal = np.unique(collected.digests, return_inverse=True)
    first = np.full(equal.max(initial=-1) + 1, len(below), np.int64)
    np.minimum.at(first, equal, labels)
    limits = np.asarray(below)[first[equal]] if len(labels) else limits
    return np.asarray(collected.chances < limits)


def limits_for(collected: Collected, labels: NDArray[np.int32], classes: int, fraction: float) -> list[float]:
    """For each class the limit below which as near to `fraction` of its images lie as equal ones allow.

    A class keeps an image for training; classes whose images the source has split have the limit 0.
    """
    limits = []
    chances, open_ = collected.chances, collected.splits < 0
    if not open_.any():
        open_ = collected.splits == 0
    for label in range(classes):
        own = np.sort(chances[open_ & (labels == label)])
        wanted = min(round(fraction * len(own)), len(own) - 1)
        limits.append(_between(own, wanted))
    return limits


def _between(ascending: NDArray[np.float64], count: int) -> float:
    """The shortest decimal number with about `count` of the numbers below it."""
    if count <= 0 or not len(ascending):
        return 0.0
    # Equal numbers, of equal images, can't be parted.
    gaps = [at for at in range(1, len(ascending)) if ascending[at] > ascending[at - 1]]
    if not gaps:
        return 0.0
    at = min(gaps, key=lambda gap: abs(gap - count))
    low, high = float(ascending[at - 1]), float(ascending[at])
    for digits in range(1, 18):
        middle = round((low + high) / 2, digits)
        if low < middle <= high:
            return middle
    return high
