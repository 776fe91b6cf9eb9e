"""The training images laid out in batches, epoch by epoch, ahead of the arithmetic that waits for them.

The order of an epoch and the distortion of its images follow from (seed, epoch) alone.
"""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import TrainSection
from pipeline.training.augment import augment

_PIECE_BYTES = 2**22

Split = tuple[NDArray[np.uint8], NDArray[np.int32]]


@dataclass(frozen=True)
class Slice:
    """Some batches in order: uint8 (steps, batch, pixels) and int32 (steps, batch)."""

    images: Any  # as the backend has arrays
    labels: Any
    whole: bool  # whether its batches have the configured size
    ends_epoch: bool


def slices(
    train: Split,
    image_shape: tuple[int, ...],
    config: TrainSection,
    seed: int,
    first_epoch: int,
    to_device: Callable[[NDArray[Any]], Any],
) -> Generator[Slice, None, None]:
    """All slices of all epochs from `first_epoch` on; each is prepared while the one before is used.

    Args:
        train: uint8 images (n, pixels) and int32 labels (n,); may be memory-mapped.
        image_shape: (height, width) or (height, width, channels).
        config: batch size, epochs, shuffle, augment, slice_megabytes.
        seed: of the order and the distortions.
        first_epoch: counted from 1.
        to_device: gives an array the form that the backend computes with.
    """
    images, labels = train

    def prepare(epoch: int, number: int, chosen: NDArray[np.int64], ends_epoch: bool) -> Slice:
        batches = _gather(images, chosen.ravel())
        if config.augment.is_on:
            # The number keeps the draws of one slice from another's; 1 keeps them from the order's.
            rng = np.random.default_rng([seed, epoch, 1, number])
            batches = augment(batches, image_shape, config.augment, rng)
        whole = chosen.shape[1] == config.batch_size
        return Slice(
            to_device(batches.reshape(*chosen.shape, -1)), to_device(labels[chosen]), whole, ends_epoch
        )

    def jobs(epoch: int) -> Iterator[tuple[int, int, NDArray[np.int64], bool]]:
        shuffle = [seed, epoch] if config.shuffle == "every_epoch" else [seed]
        order = np.random.default_rng(shuffle).permutation(len(labels))
        cuts = list(_cut(order, config, images.shape[1]))
        for number, chosen in enumerate(cuts):
            yield epoch, number, chosen, number == len(cuts) - 1

    epochs = range(first_epoch, config.epochs + 1)
    alike = config.shuffle == "once" and not config.augment.is_on
    if alike and images.nbytes <= config.slice_megabytes * 2**20:
        laid_out = [prepare(*job) for job in jobs(first_epoch)]
        for _ in epochs:
            yield from laid_out
        return
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as ahead:
        waiting = None
        for job in (job for epoch in epochs for job in jobs(epoch)):
            prepared, waiting = waiting, ahead.submit(prepare, *job)
            if prepared:
                yield prepared.result()
        if waiting:
            yield waiting.result()


def _gather(images: NDArray[np.uint8], chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
    """`images[chosen]`, of memory that is bounded also where the images are mapped."""
    if not isinstance(images, np.memmap):
        return images[chosen]
    path = str(images.filename)
    gathered = np.empty((len(chosen), images.shape[1]), np.uint8)
    # From the first to the last, and mapped anew for each piece of the file: pages that were read count as
    # memory until their mapping is closed.
    for piece in np.array_split(np.argsort(chosen), ceil(images.nbytes / _PIECE_BYTES)):
        mapped = np.memmap(path, np.uint8, "r", images.offset, images.shape)
        gathered[piece] = mapped[chosen[piece]]
    return gathered


def _cut(order: NDArray[np.int64], config: TrainSection, pixels: int) -> Iterator[NDArray[np.int64]]:
    """Blocks of (steps, batch) of an order, of bounded memory; the last may be a short batch."""
    batch_size = config.batch_size
    per_slice = max(1, config.slice_megabytes * 2**20 // (batch_size * pixels)) * batch_size
    whole = len(order) // batch_size * batch_size
    for start in range(0, whole, per_slice):
        yield order[start : min(start + per_slice, whole)].reshape(-1, batch_size)
    if whole < len(order):
        yield order[whole:].reshape(1, -1)
