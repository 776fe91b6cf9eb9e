"""NumPy's .npz and .npy files, with Keras's and MedMNIST's array names, or any others given in conf/."""

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.batches import Batch, Listing, LocalSource, Split, is_address, local_path, opened, split_of
from pipeline.data.collect import loader
from pipeline.data.formats.npy import npy_pieces
from pipeline.data.pixels import as_levels, without_one_channel
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection

_LABEL_WORDS = {"y", "label", "labels", "targets", "target"}
_IMAGE_WORDS = {"x", "image", "images", "imgs", "img", "data"}
_HOW_TO_NAME = (
    "say which is which, as in --set 'arrays={images: NAME, labels: NAME}', or with train_images, "
    "train_labels, test_images ..."
)


class NpzSource(LocalSource):
    """`path` is an .npz file, its address, or a folder of .npy and .npz files with one array each."""

    kind: Literal["npz"]
    # Which array is which, if the names don't tell: {train_images: NAME, train_labels: NAME, ...}. In a
    # folder, NAME is the name of the file, or FILE_ARRAY if the file has several arrays.
    arrays: dict[str, str] | None = None


def batches(source: NpzSource, data: "DataSection", home: Path, listing: Listing) -> Iterator[Batch]:
    """Yield the images in their order, by split."""
    with ExitStack() as stack:
        members = _members(source, data, home, stack)
        roles = _roles(source, members)
        for split in ("train", "validation", "test", None):
            pair = [roles.get((split, kind)) for kind in ("images", "labels")]
            if not all(pair):
                if any(pair):
                    lacks = "images" if pair[0] is None else "labels"
                    raise PipelineError(
                        f"it has {pair[0] or pair[1]}, but no {lacks} for it among {', '.join(members)}: "
                        f"{_HOW_TO_NAME}"
                    )
                continue
            images, labels = (str(name) for name in pair)
            yield from _split(members, images, labels, split, data.max_bytes)


load = loader(batches)


def _split(
    members: Mapping[str, "_Member"], images: str, labels: str, split: Split | None, max_bytes: int
) -> Iterator[Batch]:
    read = [np.atleast_1d(piece) for piece in members[labels].pieces(max_bytes)]
    numbers = _label_numbers(np.concatenate(read) if read else np.empty(0, np.int64), labels)
    start = 0
    for piece in members[images].pieces(max_bytes):
        levels = as_levels(without_one_channel(piece), images)
        if levels.ndim not in (3, 4):
            raise PipelineError(f"{images} has shape {piece.shape}, which is not a shape of images")
        end = start + len(levels)
        if end > len(numbers):
            raise PipelineError(f"{images} has more images than {labels} has labels, {len(numbers):,}")
        names = [f"{images}[{index}]" for index in range(start, end)]
        yield Batch(names, levels, numbers[start:end], split)
        start = end
    if start < len(numbers):
        raise PipelineError(f"{images} has {start:,} images, but {labels} has {len(numbers):,} labels")


def _label_numbers(labels: NDArray[Any], name: str) -> NDArray[Any]:
    """Return one label per image, (n,), from labels (n,), (n, 1), or (n, classes) with a 1 in each row."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    elif (
        labels.ndim == 2
        and labels.dtype.kind in "biuf"
        and (labels.sum(axis=1) == 1).all()
        and set(np.unique(labels)) <= {0, 1}
    ):
        labels = labels.argmax(axis=1)
    if labels.ndim != 1:
        raise PipelineError(f"{name} has shape {labels.shape}: an image must have one label, not several")
    if labels.dtype.kind not in "iufU":
        raise PipelineError(f"{name} has the type {labels.dtype}: labels must be whole numbers or texts")
    return labels


@dataclass(frozen=True)
class _Member:
    """An array that is not read until it is needed."""

    name: str
    open: Callable[[], Any]
    size: int

    def pieces(self, max_bytes: int) -> Iterator[NDArray[Any]]:
        return npy_pieces(self.open, self.size, self.name, max_bytes)


def _members(source: NpzSource, data: "DataSection", home: Path, stack: ExitStack) -> dict[str, _Member]:
    if is_address(source.path) or not (folder := local_path(source.path, home)).is_dir():
        return _zipped(stack.enter_context(opened(source.path, data, home)), source.path, stack)
    found: dict[str, _Member] = {}
    several: dict[str, _Member] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".npy":
            found[path.stem] = _Member(path.name, partial(path.open, "rb"), path.stat().st_size)
        elif path.suffix == ".npz":
            inner = _zipped(stack.enter_context(path.open("rb")), path.name, stack)
            if len(inner) == 1:
                [found[path.stem]] = inner.values()
            else:
                several |= {f"{path.stem}_{name}": member for name, member in inner.items()}
    return found | several


def _zipped(file: IO[bytes], name: str, stack: ExitStack) -> dict[str, _Member]:
    try:
        archive = stack.enter_context(zipfile.ZipFile(file))
    except (zipfile.BadZipFile, zlib.error) as error:
        raise PipelineError(f"{name} is not a complete .npz file: {error}") from None
    return {
        member.filename.removesuffix(".npy"): _Member(
            member.filename, partial(archive.open, member), member.file_size
        )
        for member in archive.infolist()
        if member.filename.endswith(".npy")
    }


def _roles(source: NpzSource, members: Mapping[str, _Member]) -> dict[tuple[Split | None, str], str]:
    """Return which array is which, as {(split, "images" or "labels"): name}."""
    roles: dict[tuple[Split | None, str], str] = {}
    if source.arrays is not None:
        for role, name in source.arrays.items():
            kind = role.rpartition("_")[2]
            if kind not in ("images", "labels") or (split_of(role) is None and "_" in role):
                raise PipelineError(
                    f"arrays.{role} is not a valid key: use train_images, train_labels, test_images ..."
                )
            if name not in members:
                raise PipelineError(f"it has no array {name}, but {', '.join(members) or 'no arrays at all'}")
            roles[split_of(role), kind] = name
        return roles
    for name in members:
        words = set(re.split(r"[\W_\d]+", name.lower()))
        kind = "labels" if words & _LABEL_WORDS else "images" if words & _IMAGE_WORDS else ""
        if not kind:
            continue
        # Otherwise the images of all but one of them would be left out in silence.
        if other := roles.get((split_of(name), kind)):
            raise PipelineError(
                f"{other} and {name} could both be its {kind}: join them in one array, or {_HOW_TO_NAME}"
            )
        roles[split_of(name), kind] = name
    if not roles:
        raise PipelineError(f"its arrays are called {', '.join(members) or 'nothing'}: {_HOW_TO_NAME}")
    return roles
