"""preprocess: checks data/raw, splits it, and writes flat images and their description to data/processed."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

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
from pipeline.artifacts.workspace import RAW_ARRAYS, SPLITS, Workspace, atomic, origin_of
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
from pipeline.data.names import Pictures, read_pictures
from pipeline.data.near_duplicates import Hasher, Near
from pipeline.errors import PipelineError
from pipeline.plots import samples
from pipeline.plots.findings import Shown, balance, near_pairs, outliers
from pipeline.plots.style import drawing, save
from pipeline.plots.text import drawable

_PIECE_BYTES = 2**22
_PAIRS_BYTES = 2**20  # smaller, since several float arrays are made of each piece
_SAMPLE = 2000  # training images from which the perceptual hash takes its thresholds

Images = NDArray[np.uint8]
Indices = NDArray[np.int64]
Rows = Mapping[str, Indices]  # {split: indices into data/raw}


def run(config: Config, workspace: Workspace) -> None:
    """Check the raw arrays, split validation images off the training images, and write the splits.

    Images are processed in pieces, so that memory does not grow with their number.

    Raises:
        PipelineError: If the raw arrays are invalid, or a class has no training image.
    """
    name, classes, image_shape = config.data.name, config.data.classes, config.data.reader.image_shape
    raw = _Raw(config, workspace)
    divided, chosen = _divide(config, raw)
    counts = {split: _count(raw.labels(split, chosen[split]), len(classes)) for split in SPLITS}
    _refuse_empty_class(name, classes, counts["train"])

    hasher = Hasher.of(
        raw.images("train", chosen["train"][:: -(-len(chosen["train"]) // _SAMPLE)]), image_shape
    )
    seen = {split: Inspection(hasher) for split in SPLITS}
    digests = {
        split: write_split(
            workspace,
            split,
            seen[split].watch(raw.images(split, chosen[split])),
            (len(chosen[split]), math.prod(image_shape)),
            raw.labels(split, chosen[split]),
        )
        for split in SPLITS
    }
    near = near_duplicates.find(
        seen["train"].hashes,
        seen["test"].hashes,
        lambda split, at: raw.images(split, chosen[split][at], _PAIRS_BYTES),
    )
    pictures = read_pictures(workspace.raw)
    found = _findings(raw, divided, chosen, seen, near, pictures)
    total = {kind: sum(each.kind == kind for each in found) for kind in FINDINGS}
    total["near_duplicate"] = len(near.test)

    def label_of(finding: Finding) -> str:
        return str(classes[raw.labels(finding.split)[finding.index]])

    write_findings(workspace.findings, found, label_of, pictures.names if pictures else None)
    mean, std = _moments(seen["train"].levels)
    duplicates = _duplicates({split: of.fingerprints for split, of in seen.items()})
    reader = config.data.reader.model_dump(mode="json")
    write_dataset(
        workspace,
        Dataset(name, classes, image_shape, reader, SCALE, counts, mean, std, duplicates, digests, total),
    )

    def shown(finding: Finding) -> Shown:
        [image] = next(raw.images(finding.split, np.array([finding.index])))
        return Shown(image, finding, names[raw.labels(finding.split)[finding.index]])

    names = drawable(classes)
    with drawing(samples.STYLE), atomic(workspace.samples) as path:
        figure = samples.draw(*read_split(workspace, "train"), image_shape, names)
        # The default metadata contain the version of matplotlib, which has nothing to do with the images.
        figure.savefig(path, format="png", bbox_inches="tight", metadata={"Software": None})
    with drawing(), atomic(workspace.data_figures) as folder:
        folder.mkdir()
        per_class = {split: count.per_class for split, count in counts.items()}
        figures = {
            "balance": balance(per_class, names),
            "near_duplicates": near_pairs(shown, found, counts["test"].total, near.is_complete, image_shape),
            "outliers": outliers(shown, found, image_shape),
        }
        save(figures, folder)

    say(
        f"Processed {name}: " + ", ".join(f"{counts[split].total:,} {split}" for split in SPLITS) + " images."
    )
    if any(duplicates.values()):
        listed = ", ".join(f"{count:,} in {where}" for where, count in duplicates.items() if count)
        say(f"Duplicate images: {listed}.")
    if said := findings_text(total):
        run, file = "data/findings.csv of the run in MLflow", "data/processed/findings.csv"
        where = run if workspace.is_temporary else file
        say(f"Images to look at, listed in {where}: {said}.")


class _Raw:
    """The checked arrays in data/raw; validation images are among the training images."""

    def __init__(self, config: Config, workspace: Workspace) -> None:
        self._folder = workspace.raw
        self._pixels = math.prod(config.data.reader.image_shape)
        if pinned := config.data.sha256:
            files = {workspace.raw / f"{key}.npy": digest for key, digest in pinned.model_dump().items()}
            refuse_damaged(workspace, files)
        try:
            arrays = {key: open_npy(workspace.raw / f"{key}.npy") for key in RAW_ARRAYS}
            checked = canonical(arrays, config.data.classes, config.data.reader.image_shape)
        except PipelineError as error:
            raise PipelineError(f"data/raw is refused: {error}") from None
        self._labels = {origin: checked[f"{origin}_labels"] for origin in ("train", "test")}
        self._fingerprints: dict[str, NDArray[np.uint64]] = {}

    def labels(self, split: str, at: Indices | None = None) -> NDArray[np.int32]:
        """Return the labels of the images at the indices `at` of data/raw, or of all images."""
        labels: NDArray[np.int32] = self._labels[origin_of(split)]
        return labels if at is None else labels[at]

    def images(self, split: str, at: Indices, piece_bytes: int = _PIECE_BYTES) -> Iterator[Images]:
        """Yield the flat images at the indices `at`, in pieces of at most `piece_bytes`."""
        step = max(1, piece_bytes // self._pixels)
        for start in range(0, len(at), step):
            # A new mapping for each piece: pages that were read count as memory until it is closed.
            array = open_npy(self._folder / f"{origin_of(split)}_images.npy")
            yield array[at[start : start + step]].reshape(-1, self._pixels)

    def fingerprints(self, split: str) -> NDArray[np.uint64]:
        """Return the fingerprints of all images, which are read only once."""
        origin = origin_of(split)
        if origin not in self._fingerprints:
            every = np.arange(len(self._labels[origin]))
            self._fingerprints[origin] = fingerprints_of(self.images(origin, every))
        return self._fingerprints[origin]


def _divide(config: Config, raw: _Raw) -> tuple[Rows, Rows]:
    """Return the images of each split before and after duplicates are dropped and a fraction is taken."""
    settings = config.preprocess
    train, validation = divide(
        raw.labels("train"), settings, config.data.validation_images, lambda: raw.fingerprints("train")
    )
    divided = {"train": train, "validation": validation, "test": np.arange(len(raw.labels("test")))}
    if settings.duplicates == "drop":
        prints = raw.fingerprints("train")
        train = kept(prints, train, np.concatenate([prints[validation], raw.fingerprints("test")]))
        say(f"Dropped {len(divided['train']) - len(train):,} duplicates from the training images.")
    if settings.train_fraction < 1:
        train = share(raw.labels("train"), raw.fingerprints("train"), train, settings.train_fraction)
    chosen = divided | {"train": train}
    return (divided if settings.duplicates == "drop" else chosen), chosen


def _refuse_empty_class(name: str, classes: Sequence[str], train: Count) -> None:
    for class_name, count in zip(classes, train.per_class, strict=True):
        if not count:
            raise PipelineError(
                f"{name} has no training image of the class {class_name!r} (once the validation images "
                "are set apart): add some, take it out of data.classes, or set "
                "preprocess.validation_split to stratified or hash."
            )


def _findings(
    raw: _Raw,
    divided: Rows,
    chosen: Rows,
    seen: Mapping[str, Inspection],
    near: Near,
    pictures: Pictures | None,
) -> list[Finding]:
    """Return the images that are worth a look, with their indices in data/raw."""
    fingerprints = {split: of.fingerprints for split, of in seen.items()}
    if divided is not chosen:
        # Dropped images can be conflicts, too.
        fingerprints = {split: raw.fingerprints(split)[at] for split, at in divided.items()}
    labels = {split: raw.labels(split, at) for split, at in divided.items()}
    found = [
        *_in_raw(equal_images(fingerprints, labels), divided),
        *_in_raw(near_images(near), chosen),
        *_in_raw(unusual_brightness(seen), chosen),
    ]
    if pictures:
        sizes = {split: pictures.sizes[f"{origin_of(split)}_sizes"][at] for split, at in chosen.items()}
        found += _in_raw(unusual_sizes(sizes), chosen)
    return found


def _in_raw(found: Iterable[Finding], rows: Rows) -> list[Finding]:
    """Replace indices into a split with indices into data/raw."""
    return [replace(each, index=int(rows[each.split][each.index])) for each in found]


def _count(labels: NDArray[np.int32], classes: int) -> Count:
    return Count(len(labels), tuple(np.bincount(labels, minlength=classes).tolist()))


def _moments(levels: NDArray[np.int64]) -> tuple[float, float]:
    """Return the exact mean and standard deviation of the scaled pixels, from the counts of grey levels."""
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
