"""A folder with the four IDX files of MNIST or EMNIST, each gzipped or not."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.artifacts.workspace import RAW_ARRAYS
from pipeline.data.batches import Batch, Listing, LocalSource, local_path
from pipeline.data.collect import loader
from pipeline.data.formats import idx
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection


class IdxSource(LocalSource):
    """`path` is the folder."""

    kind: Literal["idx"]
    # Whether to swap height and width, as needed for EMNIST.
    transpose: bool = False


def batches(source: IdxSource, data: "DataSection", home: Path, listing: Listing) -> Iterator[Batch]:
    """Yield the images in the order of the files."""
    folder = local_path(source.path, home)
    found = _files(folder)
    for split in ("train", "test"):
        path = found[f"{split}_labels"]
        with path.open("rb") as file:
            labels = idx.read(file, path.name, data.max_bytes)
        most = np.iinfo(labels.dtype).max + 1
        if len(data.classes) > most:
            raise PipelineError(
                f"{split}_labels is {labels.dtype}, enough for {most} classes, but data.classes names "
                f"{len(data.classes)}: store the labels as int16 or int32"
            )
        path, start = found[f"{split}_images"], 0
        with path.open("rb") as file:
            for images in idx.pieces(file, path.name, data.max_bytes):
                end = start + len(images)
                # Images for which there is no label are only counted.
                names = [f"{path.name}[{index}]" for index in range(start, min(end, len(labels)))]
                turned = images.swapaxes(1, 2) if source.transpose else images
                yield Batch(names, turned[: len(names)], labels[start:end], split)
                start = end
        if start != len(labels):
            raise PipelineError(
                f"{split}_images has {start} images, but {split}_labels has {len(labels)} labels"
            )


load = loader(batches)


def _files(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        # Archives often have a file also in a folder of the same name.
        if path.is_dir() or not (raw_name := idx.raw_name(path.name)):
            continue
        if raw_name in found:
            raise PipelineError(
                f"{folder} has both {found[raw_name].name} and {path.name}: keep only the right one"
            )
        if not path.is_file():
            raise PipelineError(f"{path} is not a file, but a pipe, a device or a broken link")
        found[raw_name] = path
    if len(found) < len(RAW_ARRAYS):
        raise PipelineError(f"{folder} must have {', '.join(idx.PUBLISHED_NAMES)}, each with or without .gz")
    return found
