"""preprocess: data/raw -> data/processed: flat images in three splits, checked and described."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.integrity import refuse_damaged
from pipeline.artifacts.processed import (
    FINDINGS,
    SCALE,
    Count,
    Dataset,
    findings_text,
    read_split,
    write_dataset,
    write_split,
)
from pipeline.artifacts.workspace import RAW_ARRAYS, SPLITS, Workspace, atomic
from pipeline.config.schema import Config
from pipeline.console import say
from pipeline.data import near_duplicates
from pipeline.data.arrays import canonical
from pipeline.data.division import divide, fingerprints_of, kept, share
from pipeline.data.findings import (
    Finding,
    equal_images,
    near_images,
    unusual_brightness,
    unusual_sizes,
    write_findings,
)
from pipeline.data.formats.npy import open_npy
from pipeline.data.inspection import Inspection
from pipeline.data.names import read_pictures
from pipeline.data.near_duplicates import Hasher
from pipeline.errors import PipelineError
from pipeline.plots import samples
from pipeline.plots.findings import Shown, balance, near_pairs, outliers
from pipeline.plots.style import DPI, drawing

_PIECE_BYTES = 2**22
_PAIRS_BYTES = 2**20  # several arrays of floats are made of each
_SAMPLE = 2000  # training images that decide what is much of a frequency

Images = NDArray[np.uint8]
Indices = NDArray[np.int64]


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

    def images(split: str, at: Indices, piece_bytes: int = _PIECE_BYTES) -> Iterator[Images]:
        return _pieces(workspace.raw / f"{_origin(split)}_images.npy", at, pixels, piece_bytes)

    @cache
    def prints(origin: str = "train") -> NDArray[np.uint64]:
        return fingerprints_of(images(origin, np.arange(len(raw[f"{origin}_labels"]))))

    given = config.data.validation_images
    settings = config.preprocess
    train, validation = divide(raw["train_labels"], settings, given, prints)
    divided = chosen = {
        "train": train,
        "validation": validation,
        "test": np.arange(len(raw["test_labels"])),
    }
    if settings.duplicates == "drop":
        others = np.concatenate([prints()[validation], prints("test")])
        train = kept(prints(), train, others)
        say(f"Dropped {len(divided['train']) - len(train):,} duplicates from the training images.")
    if settings.train_fraction < 1:
        train = share(raw["train_labels"], prints(), train, settings.train_fraction)
    chosen = chosen | {"train": train}
    labels = {split: raw[f"{_origin(split)}_labels"][chosen[split]] for split in SPLITS}
    counts = {split: _count(labels[split], len(classes)) for split in SPLITS}
    for class_name, count in zip(classes, counts["train"].per_class, strict=True):
        if not count:
            raise PipelineError(
                f"{name} has no training image of the class {class_name!r} (once the validation images "
                "are set apart): add some, take it out of data.classes, or set "
                "preprocess.validation_split to stratified or hash."
            )

    hasher = Hasher.of(images("train", train[:: -(-len(train) // _SAMPLE)]), image_shape)
    seen = {split: Inspection(hasher) for split in SPLITS}
    digests = {
        split: write_split(
            workspace,
            split,
            seen[split].watch(images(split, chosen[split])),
            (len(chosen[split]), pixels),
            labels[split],
        )
        for split in SPLITS
    }
    mean, std = _moments(seen["train"].levels)
    fingerprints = {split: of.fingerprints for split, of in seen.items()}
    duplicates = _duplicates(fingerprints)
    near = near_duplicates.find(
        seen["train"].hashes,
        seen["test"].hashes,
        lambda split, at: images(split, chosen[split][at], _PAIRS_BYTES),
    )
    if settings.duplicates == "drop":
        # Conflicts are among what was dropped, too.
        fingerprints = {split: prints(_origin(split))[at] for split, at in divided.items()}
    else:
        divided = chosen
    of_divided = {split: raw[f"{_origin(split)}_labels"][at] for split, at in divided.items()}
    found = [
        *_in_raw(equal_images(fingerprints, of_divided), divided),
        *_in_raw(near_images(near), chosen),
        *_in_raw(unusual_brightness(seen), chosen),
    ]
    pictures = read_pictures(workspace.raw)
    if pictures:
        of_split = {split: pictures.sizes[f"{_origin(split)}_sizes"][at] for split, at in chosen.items()}
        found += _in_raw(unusual_sizes(of_split), chosen)
    total = {kind: sum(each.kind == kind for each in found) for kind in FINDINGS}
    total["near_duplicate"] = len(near.test)

    def label_of(finding: Finding) -> str:
        return str(classes[raw[f"{_origin(finding.split)}_labels"][finding.index]])

    write_findings(workspace.findings, found, label_of, pictures.names if pictures else None)
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
            total,
        ),
    )
    with drawing({}), atomic(workspace.samples) as path:
        figure = samples.draw(*read_split(workspace, "train"), image_shape, classes)
        # The default metadata name matplotlib's version, which is no property of the images.
        figure.savefig(path, format="png", bbox_inches="tight", metadata={"Software": None})
    with drawing(), atomic(workspace.data_figures) as folder:
        folder.mkdir()
        per_class = {split: count.per_class for split, count in counts.items()}

        def shown(finding: Finding) -> Shown:
            [image] = next(images(finding.split, np.array([finding.index])))
            return Shown(image, finding, label_of(finding))

        figures = {
            "balance": balance(per_class, classes),
            "near_duplicates": near_pairs(shown, found, counts["test"].total, near.is_complete, image_shape),
            "outliers": outliers(shown, found, image_shape),
        }
        for figure_name, figure in figures.items():
            figure.savefig(folder / f"{figure_name}.png", dpi=DPI, metadata={"Software": None})

    say(
        f"Processed {name}: " + ", ".join(f"{counts[split].total:,} {split}" for split in SPLITS) + " images."
    )
    if any(duplicates.values()):
        listed = ", ".join(f"{count:,} in {where}" for where, count in duplicates.items() if count)
        say(f"Duplicate images: {listed}.")
    if said := findings_text(total):
        say(f"data/processed/findings.csv lists images to look at: {said}.")


def _in_raw(found: Iterable[Finding], rows: Mapping[str, Indices]) -> list[Finding]:
    """With the numbers that the images have in data/raw."""
    return [replace(each, index=int(rows[each.split][each.index])) for each in found]


def _origin(split: str) -> str:
    return "test" if split == "test" else "train"


def _count(labels: NDArray[np.int32], classes: int) -> Count:
    return Count(len(labels), tuple(np.bincount(labels, minlength=classes).tolist()))


def _pieces(path: Path, chosen: Indices, pixels: int, piece_bytes: int) -> Iterator[Images]:
    """The chosen images, flat, so many bytes at a time."""
    step = max(1, piece_bytes // pixels)
    for start in range(0, len(chosen), step):
        # Mapped anew for each piece: pages that were read count as memory until their mapping is closed.
        yield open_npy(path)[chosen[start : start + step]].reshape(-1, pixels)


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
