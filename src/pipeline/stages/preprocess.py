"""preprocess: data/raw -> data/processed: flat images in three splits, checked and described."""

import math
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.integrity import refuse_damaged
from pipeline.artifacts.processed import SCALE, Count, Dataset, read_split, write_dataset, write_split
from pipeline.artifacts.workspace import RAW_ARRAYS, SPLITS, Workspace, atomic
from pipeline.config.schema import Config
from pipeline.console import say
from pipeline.data.arrays import canonical
from pipeline.data.division import divide, fingerprints_of, kept, share
from pipeline.data.formats.npy import open_npy
from pipeline.errors import PipelineError
from pipeline.plots import samples
from pipeline.plots.style import drawing

_PIECE_BYTES = 2**22


def run(config: Config, workspace: Workspace) -> None:
    """Check the raw arrays, split validation images off the training images, and write the splits.

    The images pass through in pieces, so that memory does not grow with their number.

    Raises:
        PipelineError: the raw arrays are not what they must be, or a class has no training image.
    """
    name, classes, pinned = config.data.name, config.data.classes, config.data.sha256
    image_shape = config.data.reader.image_shape
    if pinned:
        raw_files = {workspace.raw / f"{key}.npy": digest for key, digest in pinned.model_dump().items()}
        refuse_damaged(workspace, raw_files)
    try:
        arrays = {key: open_npy(workspace.raw / f"{key}.npy") for key in RAW_ARRAYS}
        raw = canonical(arrays, classes, image_shape)
    except PipelineError as error:
        raise PipelineError(f"data/raw is refused: {error}") from None
    pixels = math.prod(image_shape)

    @cache
    def prints(origin: str = "train") -> NDArray[np.uint64]:
        every = np.arange(len(raw[f"{origin}_labels"]))
        return fingerprints_of(_pieces(workspace.raw / f"{origin}_images.npy", every, pixels))

    given = config.data.validation_images
    settings = config.preprocess
    train, validation = divide(raw["train_labels"], settings, given, prints)
    if settings.duplicates == "drop":
        before, others = len(train), np.concatenate([prints()[validation], prints("test")])
        train = kept(prints(), train, others)
        say(f"Dropped {before - len(train):,} duplicates from the training images.")
    if settings.train_fraction < 1:
        train = share(raw["train_labels"], prints(), train, settings.train_fraction)
    chosen = {"train": train, "validation": validation, "test": np.arange(len(raw["test_labels"]))}
    labels = {split: raw[f"{_origin(split)}_labels"][chosen[split]] for split in SPLITS}
    counts = {split: _count(labels[split], len(classes)) for split in SPLITS}
    for class_name, count in zip(classes, counts["train"].per_class, strict=True):
        if not count:
            raise PipelineError(
                f"{name} has no training image of the class {class_name!r} (once the validation images "
                "are set apart): add some, take it out of data.classes, or set "
                "preprocess.validation_split to stratified or hash."
            )

    digests, levels, fingerprints = {}, {}, {}
    for split in SPLITS:
        seen: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
        levels[split] = np.zeros(256, np.int64)
        pieces = _pieces(workspace.raw / f"{_origin(split)}_images.npy", chosen[split], pixels)
        watched = _watch(pieces, seen, levels[split])
        digests[split] = write_split(workspace, split, watched, (len(chosen[split]), pixels), labels[split])
        fingerprints[split] = np.concatenate(seen)

    mean, std = _moments(levels["train"])
    duplicates = _duplicates(fingerprints)
    write_dataset(
        workspace,
        Dataset(
            name,
            classes,
            image_shape,
            config.data.reader.model_dump(mode="json"),
            SCALE,
            counts,
            mean,
            std,
            duplicates,
            digests,
        ),
    )
    with drawing({}), atomic(workspace.samples) as path:
        figure = samples.draw(*read_split(workspace, "train"), image_shape, classes)
        # The default metadata name matplotlib's version, which is no property of the images.
        figure.savefig(path, format="png", bbox_inches="tight", metadata={"Software": None})

    say(
        f"Processed {name}: " + ", ".join(f"{counts[split].total:,} {split}" for split in SPLITS) + " images."
    )
    if any(duplicates.values()):
        found = ", ".join(f"{count:,} in {where}" for where, count in duplicates.items() if count)
        say(f"Duplicate images: {found}.")


def _origin(split: str) -> str:
    return "test" if split == "test" else "train"


def _count(labels: NDArray[np.int32], classes: int) -> Count:
    return Count(len(labels), tuple(np.bincount(labels, minlength=classes).tolist()))


def _pieces(path: Path, chosen: NDArray[np.int64], pixels: int) -> Iterator[NDArray[np.uint8]]:
    """The chosen images, flat, a few megabytes at a time."""
    step = max(1, _PIECE_BYTES // pixels)
    for start in range(0, len(chosen), step):
        # Mapped anew for each piece: pages that were read count as memory until their mapping is closed.
        yield open_npy(path)[chosen[start : start + step]].reshape(-1, pixels)


def _watch(
    pieces: Iterable[NDArray[np.uint8]], seen: list[NDArray[np.uint64]], levels: NDArray[np.int64]
) -> Iterator[NDArray[np.uint8]]:
    """Pass the pieces on; collect their fingerprints in `seen` and count their grey levels in `levels`."""
    for piece in pieces:
        seen.append(fingerprints_of([piece]))
        levels += np.bincount(piece.ravel(), minlength=256)
        yield piece


def _moments(levels: NDArray[np.int64]) -> tuple[float, float]:
    """Mean and standard deviation of the scaled pixels, from how often each grey level occurs, exactly."""
    occurrences = levels.tolist()
    total = sum(occurrences)
    first = sum(level * count for level, count in enumerate(occurrences))
    second = sum(level**2 * count for level, count in enumerate(occurrences))
    return first / total * SCALE, math.sqrt(total * second - first**2) / total * SCALE


def _duplicates(fingerprints: dict[str, NDArray[np.uint64]]) -> dict[str, int]:
    within = {split: len(prints) - len(np.unique(prints)) for split, prints in fingerprints.items()}
    across = {
        f"{a}+{b}": int(np.isin(fingerprints[b], fingerprints[a]).sum()) for a, b in combinations(SPLITS, 2)
    }
    return within | across
