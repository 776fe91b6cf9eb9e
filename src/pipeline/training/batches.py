"""The training images laid out in batches, epoch by epoch, ahead of the arithmetic that waits for them.

The order of an epoch and the distortion of its images follow from (seed, epoch) alone.
"""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config import TrainSection
from pipeline.training.augment import augment

# What a slice of an epoch takes; two of them are in memory at a time, whatever the size of the data.
SLICE_BYTES = 64 * 2**20

Split = tuple[NDArray[np.uint8], NDArray[np.int32]]


@dataclass(frozen=True)
class Slice:
    """Some batches in order: uint8 (steps, batch, pixels) and int32 (steps, batch)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    ends_epoch: bool


def slices(
    train: Split, image_shape: tuple[int, ...], config: TrainSection, seed: int, first_epoch: int = 1
) -> Generator[Slice, None, None]:
    """All slices of all epochs from `first_epoch` on; each is prepared while the one before is used.

    Args:
        train: uint8 images (n, pixels) and int32 labels (n,); may be memory-mapped.
        image_shape: (height, width) or (height, width, channels).
        config: batch size, epochs, shuffle, augment.
        seed: of the order and the distortions.
        first_epoch: counted from 1.
    """
    images, labels = train

    def prepare(epoch: int, number: int, chosen: NDArray[np.int64], ends_epoch: bool) -> Slice:
        batches = images[chosen.ravel()]
        if config.augment.is_on:
            # The number keeps the draws of one slice from another's; 1 keeps them from the order's.
            rng = np.random.default_rng([seed, epoch, 1, number])
            batches = augment(batches, image_shape, config.augment, rng)
        return Slice(batches.reshape(*chosen.shape, -1), labels[chosen], ends_epoch)

    def jobs() -> Iterator[tuple[int, int, NDArray[np.int64], bool]]:
        for epoch in range(first_epoch, config.epochs + 1):
            shuffle = [seed, epoch] if config.shuffle == "every_epoch" else [seed]
            order = np.random.default_rng(shuffle).permutation(len(labels))
            cuts = list(_cut(order, config.batch_size, images.shape[1]))
            for number, chosen in enumerate(cuts):
                yield epoch, number, chosen, number == len(cuts) - 1

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as ahead:
        waiting = None
        for job in jobs():
            prepared, waiting = waiting, ahead.submit(prepare, *job)
            if prepared:
                yield prepared.result()
        if waiting:
            yield waiting.result()


def _cut(order: NDArray[np.int64], batch_size: int, pixels: int) -> Iterator[NDArray[np.int64]]:
    """Blocks of (steps, batch) of an order, of bounded memory; the last may be a short batch."""
    per_slice = max(1, SLICE_BYTES // (batch_size * pixels)) * batch_size
    whole = len(order) // batch_size * batch_size
    for start in range(0, whole, per_slice):
        yield order[start : min(start + per_slice, whole)].reshape(-1, batch_size)
    if whole < len(order):
        yield order[whole:].reshape(1, -1)
