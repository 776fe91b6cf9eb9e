"""The processed dataset: three splits of flat, memory-mapped images, and their description."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline.artifacts.integrity import refuse_damaged
from pipeline.artifacts.workspace import Workspace, atomic, sha256, write_text
from pipeline.errors import PipelineError

SCALE = 1 / 255
# The kinds of images that findings.csv lists, with the text for several of them.
FINDINGS = {
    "duplicate": "equal to another",
    "conflict": "equal to one of another class",
    "near_duplicate": "for testing and nearly equal to one for training",
    "one_colour": "of one colour",
    "brightness": "unusually dark or bright",
    "size": "of unusual size",
}


@dataclass(frozen=True)
class Count:
    """The number of images in a split, in total and per class in the order of the labels."""

    total: int
    per_class: tuple[int, ...]


@dataclass(frozen=True)
class Dataset:
    """The contents of dataset.json, and without the test images those of training.json."""

    name: str
    classes: tuple[str, ...]
    # (height, width) or (height, width, channels).
    image_shape: tuple[int, ...]
    # `data.reader`: how a picture becomes such an image.
    reader: Mapping[str, Any]
    # The factor that `scaled` multiplies by.
    scale: float
    counts: Mapping[str, Count]
    # Of the scaled pixels of the training split.
    mean: float
    std: float
    # Per split: images equal to an earlier one; per pair "a+b": images of b that are also in a.
    duplicates: Mapping[str, int]
    # {split: {"images" or "labels": SHA-256 of its .npy file}}
    sha256: Mapping[str, Mapping[str, str]]
    # The number of images of each kind in FINDINGS.
    findings: Mapping[str, int] = field(default_factory=dict)


def findings_text(findings: Mapping[str, int]) -> str:
    """Return a text about how many images deserve a look and why; "" if none does."""
    return ", ".join(f"{findings[kind]:,} {what}" for kind, what in FINDINGS.items() if findings.get(kind))


def scaled(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale images to the network's input: float32 in [0, 1] of the same shape."""
    return np.multiply(images, np.float32(SCALE), dtype=np.float32)


def write_dataset(workspace: Workspace, dataset: Dataset) -> None:
    """Write dataset.json, and training.json, which is the same without what depends on the test images."""

    def known(values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if "test" not in key}

    training = dataclasses.replace(
        dataset,
        counts=known(dataset.counts),
        duplicates=known(dataset.duplicates),
        sha256=known(dataset.sha256),
        findings={},
    )
    for path, content in ((workspace.dataset, dataset), (workspace.training_dataset, training)):
        write_text(path, json.dumps(dataclasses.asdict(content), indent=2, ensure_ascii=False) + "\n")


def read_dataset(workspace: Workspace) -> Dataset:
    """Read dataset.json.

    Raises:
        PipelineError: If it is missing or was not written by `write_dataset`.
    """
    return _read(workspace.dataset)


def read_training_dataset(workspace: Workspace) -> Dataset:
    """Read training.json: new test images change nothing in it, so that nothing is trained again for them.

    Raises:
        PipelineError: If it is missing or was not written by `write_dataset`.
    """
    return _read(workspace.training_dataset)


def _read(path: Path) -> Dataset:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        counts = {split: Count(**count) for split, count in values["counts"].items()}
        dataset = Dataset(**{**values, "counts": counts})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise PipelineError(f"{path} is missing or damaged: `dvc repro` writes it.") from None
    return dataclasses.replace(
        dataset,
        classes=tuple(dataset.classes),
        image_shape=tuple(dataset.image_shape),
        counts={split: Count(count.total, tuple(count.per_class)) for split, count in counts.items()},
    )


def refuse_damaged_splits(workspace: Workspace, dataset: Dataset, *splits: str) -> None:
    """Check the files of the splits against the digests in `dataset`.

    Raises:
        PipelineError: If a file is missing or damaged, with the command that restores it.
    """
    refuse_damaged(
        workspace,
        {
            workspace.processed / split / f"{name}.npy": digest
            for split in splits
            for name, digest in dataset.sha256[split].items()
        },
    )


def write_split(
    workspace: Workspace,
    split: str,
    images: Iterable[NDArray[np.uint8]],
    shape: tuple[int, int],
    labels: NDArray[np.int32],
) -> dict[str, str]:
    """Write one split.

    Args:
        workspace: where to write.
        split: train, validation or test.
        images: the flat images in pieces, each uint8 (n, pixels).
        shape: (images, pixels) of all pieces together.
        labels: int32 (images,).

    Returns:
        The SHA-256 of images.npy and labels.npy, by "images" and "labels".
    """
    with atomic(workspace.processed / split) as folder:
        folder.mkdir()
        with (folder / "images.npy").open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(file, header)
            for piece in images:
                file.write(np.ascontiguousarray(piece, np.uint8).data)
        np.save(folder / "labels.npy", np.ascontiguousarray(labels, np.int32))
        return {name: sha256(folder / f"{name}.npy") for name in ("images", "labels")}


def read_split(workspace: Workspace, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Map one split into memory, read-only.

    Args:
        workspace: where to read.
        split: train, validation or test.

    Returns:
        The images, uint8 (n, pixels), not yet `scaled`, and the labels, int32 (n,).

    Raises:
        PipelineError: If a file is missing or damaged.
    """
    folder = workspace.processed / split
    try:
        images, labels = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "labels"))
    except (OSError, ValueError):
        raise PipelineError(f"{folder} is missing or damaged: `dvc repro` writes it.") from None
    return images, labels
