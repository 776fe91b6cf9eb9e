"""Collect the images of a source into the raw arrays, in the same order and by the same split everywhere."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.data.arrays import Arrays, Chosen
from pipeline.data.batches import Batch, Listing, LocalSource, Split, update_command
from pipeline.data.decode import DIGEST_BYTES, Rows, decode
from pipeline.data.layout import arrange, natural_order, without_points
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection

_SIDES: dict[Split | None, int] = {None: -1, "train": 0, "validation": 1, "test": 2}
Source = TypeVar("Source", bound=LocalSource)
# Yields the images of a source, whose relative path is relative to the given folder.
Batches = Callable[[Source, "DataSection", Path, Listing], Iterator[Batch]]


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
    description: str

    @property
    def words(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """The two halves of each digest as numbers, (n,) each, which are in the order of the digests."""
        words = self.digests.view(">u8")
        return words[::2], words[1::2]

    @property
    def chances(self) -> NDArray[np.float64]:
        """For each image a number in [0, 1) that depends only on its pixels."""
        return (self.words[0] >> np.uint64(11)).astype(np.float64) / 2.0**53

    def labels_in(self, classes: Sequence[str]) -> NDArray[np.int32]:
        """Return the labels as indices into `classes`, which must have all classes of the source."""
        return np.array([classes.index(name) for name in self.classes], np.int32)[self.labels]


def collect(
    batches: Batches[Source], source: Source, data: "DataSection", home: Path, *, total: int | None
) -> Collected:
    """Read a whole source.

    For the progress, `total` is the number of images, if it is known, unless the source counts them.

    Raises:
        PipelineError: If a picture or a label can't be read, or the layout of the files is not supported.
    """
    listing = Listing(total=total)
    images, skip = batches(source, data, home, listing), source.unreadable == "skip"
    rows = decode(images, data.reader, listing, skip=skip, what=source.path)
    description = ""
    is_set = bool(rows.labels) and rows.labels[0] is None
    if is_set:
        layout = arrange(rows.names, listing, data.classes)
        description, classes = layout.description, layout.classes
        rows.skipped += layout.unplaced.items()
        rows.keep([index for index, name in enumerate(rows.names) if name in layout.places])
        places = [layout.places[name] for name in rows.names]
        labels: Sequence[Any] = [place.label for place in places]
        splits = [place.split for place in places]
    else:
        labels, splits = without_points(rows.labels, data.classes), rows.splits
        classes = listing.classes or natural_order(map(str, labels))
    used = {str(label) for label in labels}
    if strange := used - set(classes):
        raise PipelineError(
            f"its files have different classes: {min(strange)!r} is not in all of them; give one file, or a "
            "folder of files that belong together"
        )
    called = tuple(name for name in classes if name in used)
    number = {name: index for index, name in enumerate(called)}
    is_numbered = listing.classes is None and not any(isinstance(label, str) for label in labels)
    return Collected(
        rows,
        _named(called, source, data, is_numbered),
        tuple(name for name in classes if name not in used),
        called if is_numbered else None,
        np.array([number[str(label)] for label in labels], np.int32),
        np.array([_SIDES[split] for split in splits], np.int8),
        np.frombuffer(rows.digests, f"V{DIGEST_BYTES}"),
        is_set,
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


def loader(batches: Batches[Source]) -> "Callable[[Source, DataSection, Path], Arrays]":
    """Return the `load` of a source whose images, read by `batches`, stay in a temporary file."""
    return partial(_load, batches)


def _load(batches: Batches[Source], source: Source, data: "DataSection", home: Path) -> Arrays:
    """Return the raw arrays of a source, or refuse it if its images or classes are not the pinned ones."""
    collected = collect(batches, source, data, home, total=source.images)
    found = len(collected.labels)
    remedy = f"`{update_command(source.path, data.name)}` says what changed and pins it"
    if source.images is not None and found != source.images:
        raise PipelineError(
            f"{source.path} has {found:,} images now, but {source.images:,} are pinned: {remedy}"
        )
    if stray := [name for name in collected.classes if name not in data.classes]:
        raise PipelineError(f"it has the class {stray[0]!r}, which is not in data.classes: {remedy}")
    below = source.test_below
    if below is not None and len(below) != len(data.classes):
        raise PipelineError(f"test_below has {len(below)} numbers for {len(data.classes)} classes: {remedy}")
    given = int((collected.splits == 1).sum())
    if given != data.validation_images:
        raise PipelineError(
            f"{source.path} has {given:,} validation images, but data.validation_images is "
            f"{data.validation_images:,}: {remedy}"
        )
    labels = collected.labels_in(data.classes)
    return arranged(collected, labels, sides_of(collected, labels, below))


def sides_of(
    collected: Collected, labels: NDArray[np.int32], test_below: Sequence[float] | None
) -> NDArray[np.int8]:
    """Decide for each image whether it is for training (0), validation (1) or testing (2).

    Args:
        collected: What was read.
        labels: The labels of the images.
        test_below: For each class, the limit below which the digests of test images are, so that an image is
            chosen by its pixels and class alone, not by other images. If equal images have several classes,
            the first class decides for all of them. If None, the test images are those that the source says.
    """
    sides = np.maximum(collected.splits, 0)
    if test_below is not None:
        _, equal = np.unique(collected.digests, return_inverse=True)
        first = np.full(equal.max(initial=-1) + 1, len(test_below), np.int64)
        np.minimum.at(first, equal, labels)
        sides[(sides == 0) & (collected.chances < np.asarray(test_below)[first[equal]])] = 2
    return sides


def arranged(collected: Collected, labels: NDArray[np.int32], sides: NDArray[np.int8]) -> Arrays:
    """Return the raw arrays by `sides_of`; validation images of the source come after the training images."""
    order = np.arange(len(labels))
    if collected.is_set:
        # By content, since names and order of files have no meaning; so the last tenth is a random one.
        high, low = collected.words
        order = np.lexsort((labels, low, high))
    train, validation, test = (order[sides[order] == side] for side in range(3))
    offsets = np.asarray(collected.rows.offsets, np.int64)
    names, sizes = collected.rows.names, np.asarray(collected.rows.sizes, np.int32).reshape(-1, 2)
    arrays: dict[str, Any] = {}
    for split, indices in (("train", np.concatenate([train, validation])), ("test", test)):
        arrays[f"{split}_images"] = Chosen(collected.rows.file, collected.rows.shape, offsets[indices])
        arrays[f"{split}_labels"] = labels[indices]
        if collected.is_set:
            arrays[f"{split}_names"] = [names[index] for index in indices]
            arrays[f"{split}_sizes"] = sizes[indices]
    return arrays


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
