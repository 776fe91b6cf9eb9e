"""MATLAB files of SVHN's cropped digits and of EMNIST, read with SciPy."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.data.batches import Batch, Listing, LocalSource, Split, split_of, tables
from pipeline.data.collect import loader
from pipeline.data.pixels import as_levels
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection

_IMAGES = 1000  # in a batch
# What SciPy raises for a damaged file, in addition to its own MatReadError.
_DAMAGED = (ValueError, TypeError, KeyError, OSError, zlib.error, struct.error, EOFError)


class MatSource(LocalSource):
    """`path` is the file, its address, or a folder of files such as train_32x32.mat."""

    kind: Literal["mat"]


def batches(source: MatSource, data: "DataSection", home: Path, listing: Listing) -> Iterator[Batch]:
    """Yield the images in their order; SciPy holds one file at a time in memory."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    for path, name, open_file in tables(source.path, data, home, (".mat",)):
        try:
            with open_file() as file:
                values = loadmat(file, struct_as_record=False, squeeze_me=False)
        except PermissionError:
            raise
        except NotImplementedError:
            raise PipelineError(f"{name} is a .mat file of version 7.3: save it as version 7") from None
        except (MatReadError, *_DAMAGED) as error:
            raise PipelineError(f"{name} is not a complete MATLAB file: {error}") from None
        if "dataset" in values:
            yield from _emnist(values["dataset"], name, listing)
        elif "X" in values and "y" in values:
            split = split_of(PurePosixPath(name).stem) if path else None
            yield from _svhn(values["X"], values["y"], name, split)
        else:
            own = [key for key in values if not key.startswith("__")]
            raise PipelineError(
                f"{name} has {', '.join(own) or 'no arrays'}; it must have X and y, or dataset"
            )


load = loader(batches)


def _svhn(images: Any, labels: Any, name: str, split: Split | None) -> Iterator[Batch]:
    """Yield images X, uint8 (32, 32, 3, n), with digits y, (n, 1), from 1 to 10, which means 0."""
    digits = np.asarray(labels).ravel()
    if digits.dtype.kind == "f" and (digits % 1 == 0).all():  # MATLAB's own type of numbers
        digits = digits.astype(np.int64)
    if np.ndim(images) != 4 or images.shape[-1] != len(digits) or digits.dtype.kind not in "iu":
        raise PipelineError(
            f"{name}: X has shape {np.shape(images)}, but y has {np.shape(labels)} and the type "
            f"{digits.dtype}: they must be images (height, width, 3, n) and whole numbers (n, 1)"
        )
    low, high = digits.min(initial=1), digits.max(initial=1)
    if low < 0 or high > (10 if low else 9):
        raise PipelineError(
            f"{name}: y has labels from {low} to {high}, but those of SVHN are from 1 to 10: save it as NPZ"
        )
    for start in range(0, len(digits), _IMAGES):
        piece = np.ascontiguousarray(np.moveaxis(images[..., start : start + _IMAGES], -1, 0))
        numbers = digits[start : start + _IMAGES].astype(np.int64) % 10
        called = [f"{name}[{index}]" for index in range(start, start + len(piece))]
        yield Batch(called, as_levels(piece, name), numbers, split)


def _emnist(dataset: Any, name: str, listing: Listing) -> Iterator[Batch]:
    """Yield the images of EMNIST.

    The dataset is a struct with train and test, each with images (n, 784) in column order and labels, and a
    mapping from labels to characters.
    """
    try:
        whole = dataset[0, 0]
        mapping = {int(row[0]): "".join(chr(code) for code in row[1:] if code) for row in whole.mapping}
        parts: dict[Split, Any] = {"train": whole.train[0, 0], "test": whole.test[0, 0]}
        arrays = {split: (part.images, np.ravel(part.labels)) for split, part in parts.items()}
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise PipelineError(f"{name} does not have the structure of EMNIST: {error}") from None
    listing.classes = tuple(mapping.values())
    for split, (images, labels) in arrays.items():
        side = int(np.sqrt(images.shape[-1]))
        if images.ndim != 2 or side * side != images.shape[1] or len(images) != len(labels):
            raise PipelineError(f"{name}: its {split} images have shape {images.shape}")
        if stray := set(labels.tolist()) - mapping.keys():
            raise PipelineError(f"{name} has the label {min(stray)}, which is not in its mapping")
        for start in range(0, len(images), _IMAGES):
            piece = as_levels(images[start : start + _IMAGES], name).reshape(-1, side, side)
            called = [f"{name} {split}[{index}]" for index in range(start, start + len(piece))]
            names = [mapping[int(label)] for label in labels[start : start + len(piece)]]
            yield Batch(called, np.ascontiguousarray(piece.swapaxes(1, 2)), names, split)
