"""Collect the images of a source into the raw arrays, in the same order and by the same split everywhere."""

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
    # The names of the classes that have images, in the source's order, and of those that have none.
    classes: tuple[str, ...]
    empty: tuple[str, ...]
    # What the source calls the classes that have images, if it has numbers for them.
    numbers: tuple[str, ...] | None
    labels: NDArray[np.int32]  # indices into classes
    splits: NDArray[np.int8]  # 0: train, 1: validation, 2: test, -1: the source does not say
    digests: NDArray[np.void]
    # Whether the source is a set of files, whose order has no meaning.
    is_set: bool
    skipped: list[tuple[str, str]]
    description: str

    @property
    def chances(self) -> NDArray[np.float64]:
        """For each image a number in [0, 1) that depends only on its pixels."""
        first = self.digests.view(">u8").reshape(len(self.digests), -1)[:, 0]
        return (first >> np.uint64(11)).astype(np.float64) / 2.0**53


def collect(
    batches: Batches, source: LocalSource, data: "DataSection", *, total: int | None, fresh: bool = False
) -> Collected:
    """Read a whole source.

    Args:
        batches: Yields its images.
        source: Its settings.
        data: Has the reader, and the names of the classes.
        total: How many images there are, for the progress, unless the source counts them; None if unknown.
        fresh: Whether the classes are not known yet.

    Raises:
        PipelineError: If a picture or a label can't be read, or the layout of the files is not supported.
    """
    listing = Listing(total=total)
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
    """Return the names in data.classes for what the source calls its classes."""
    if source.labels is not None:
        names = dict(zip(source.labels, data.classes, strict=False))
    elif by_number:
        names = {str(number): name for number, name in enumerate(data.classes)}
    else:
        return called
    return tuple(names.get(name, name) for name in called)


def _numbered(labels: Sequence[Any], classes: Sequence[str]) -> NDArray[np.int32]:
    """Return the index of each label in `classes`."""
    number = {name: index for index, name in enumerate(classes)}
    return np.array([number[str(label)] for label in labels], np.int32)


def load(batches: Batches, source: LocalSource, data: "DataSection") -> Arrays:
    """Return the raw arrays of a source, whose images stay in a temporary file.

    Args:
        batches: Yields its images.
        source: Its settings: `images` is pinned, `test_below` chooses the test images.
        data: Has the names of the classes, and the number of validation images that the source provides.

    Raises:
        PipelineError: As in `collect`, or if the images or classes of the source are not the pinned ones.
    """
    collected = collect(batches, source, data, total=source.images)
    found = len(collected.labels)
    remedy = f"`{update_command(source.path, data.name)}` says what changed and pins it"
    if source.images is not None and found != source.images:
        raise PipelineError(
            f"{source.path} has {found:,} images now, but {source.images:,} are pinned: {remedy}"
        )
    arrays = arranged(collected, data.classes, source.test_below, remedy)
    given = int((collected.splits == 1).sum())
    if given != data.validation_images:
        raise PipelineError(
            f"{source.path} has {given:,} validation images, but data.validation_images is "
            f"{data.validation_images:,}: {remedy}"
        )
    return arrays


def loader(
    batches: "Callable[[Source, DataSection, Path, Listing], Iterator[Batch]]",
) -> "Callable[[Source, DataSection, Path], Arrays]":
    """Return the `load` of a source whose images are read by `batches`."""
    return lambda source, data, home: load(lambda listing: batches(source, data, home, listing), source, data)


def arranged(
    collected: Collected, classes: Sequence[str], test_below: Sequence[float] | None, remedy: str = ""
) -> Arrays:
    """Choose the training and the test images, and order them.

    Validation images that the source provides come after the training images.

    Args:
        collected: What was read.
        classes: The names of the classes, in the order of the labels.
        test_below: For each class, the limit below which the digests of test images are. If None, the test
            images are those that the source says.
        remedy: What to do about a class that is not in `classes`, for the message.

    Raises:
        PipelineError: If the source has other classes, or `test_below` does not fit them.
    """
    if stray := [name for name in collected.classes if name not in set(classes)]:
        raise PipelineError(
            f"it has the class {stray[0]!r}, which is not in data.classes: {remedy or 'add it there'}"
        )
    number = np.array([list(classes).index(name) for name in collected.classes], np.int32)
    labels = number[collected.labels]
    is_test = collected.splits == 2
    if test_below is not None:
        if len(test_below) != len(classes):
            raise PipelineError(
                f"test_below has {len(test_below)} numbers for {len(classes)} classes: {remedy}"
            )
        is_test |= (collected.splits != 1) & chosen_by_digest(collected, labels, test_below)
    order = np.arange(len(labels))
    if collected.is_set:
        # By content, since names and order of files have no meaning; so the last tenth is a random one.
        order = np.lexsort((labels, *np.flip(collected.digests.view(">u8").reshape(len(labels), -1).T, 0)))
    is_last = collected.splits[order] == 1
    train = np.concatenate([order[~is_test[order] & ~is_last], order[~is_test[order] & is_last]])
    offsets = np.asarray(collected.rows.offsets, np.int64)
    names, sizes = collected.rows.names, np.asarray(collected.rows.sizes, np.int32).reshape(-1, 2)
    arrays: dict[str, Any] = {}
    for split, indices in (("train", train), ("test", order[is_test[order]])):
        arrays[f"{split}_images"] = Chosen(collected.rows.file, collected.rows.shape, offsets[indices])
        arrays[f"{split}_labels"] = labels[indices]
        if collected.is_set:
            arrays[f"{split}_names"] = [names[index] for index in indices]
            arrays[f"{split}_sizes"] = sizes[indices]
    return arrays


def chosen_by_digest(
    collected: Collected, labels: NDArray[np.int32], below: Sequence[float]
) -> NDArray[np.bool_]:
    """Decide for each image whether it is for testing, by its pixels and class alone, not by other images.

    If equal images have several classes, the first class decides for all of them.
    """
    limits = np.asarray(below)[labels]
    _, equal = np.unique(collected.digests, return_inverse=True)
    first = np.full(equal.max(initial=-1) + 1, len(below), np.int64)
    np.minimum.at(first, equal, labels)
    limits = np.asarray(below)[first[equal]] if len(labels) else limits
    return np.asarray(collected.chances < limits)


def limits_for(collected: Collected, labels: NDArray[np.int32], classes: int, fraction: float) -> list[float]:
    """Find for each class the limit below which about `fraction` of the digests of its images are.

    Equal images are not separated. A class keeps at least one image for training. Classes whose images the
    source has split get the limit 0.
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
    """Return the shortest decimal number that has about `count` of the numbers below it."""
    if count <= 0 or not len(ascending):
        return 0.0
    # Equal numbers, which belong to equal images, can't be separated.
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
