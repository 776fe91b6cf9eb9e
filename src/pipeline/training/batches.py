"""Preparation of the training images in batches, one slice ahead of the training step that uses them.

The order of the images in an epoch and their augmentation are derived from (seed, epoch) alone.
"""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import TrainSection

_PIECE_BYTES = 2**22

Split = tuple[NDArray[np.uint8], NDArray[np.int32]]
# Images and labels as arrays of the backend: uint8 (steps, batch, pixels) and int32 (steps, batch).
Batches = tuple[Any, Any]


@dataclass(frozen=True)
class Slice:
    """Some consecutive batches."""

    batches: Batches
    whole: bool  # whether the batches have the configured size
    ends_epoch: bool


def slices(
    train: Split,
    config: TrainSection,
    seed: int,
    first_epoch: int,
    lay_out: Callable[[Split, NDArray[np.int64], np.random.Generator | None], Batches],
) -> Generator[Slice, None, None]:
    """Yield the slices of all epochs from `first_epoch` on; each is prepared while the previous one is used.

    Args:
        train: uint8 images (n, pixels) and int32 labels (n,); may be memory-mapped.
        config: batch size, epochs, shuffle, augment, slice_megabytes.
        seed: determines the order and the augmentation.
        first_epoch: counted from 1.
        lay_out: `Program.lay_out` of the backend.
    """
    images, labels = train

    def prepare(epoch: int, number: int, chosen: NDArray[np.int64], ends_epoch: bool) -> Slice:
        # `number` separates the random numbers of the slices; 1 separates them from those of the order.
        rng = np.random.default_rng([seed, epoch, 1, number]) if config.augment.is_on else None
        whole = chosen.shape[1] == config.batch_size
        return Slice(lay_out(train, chosen, rng), whole, ends_epoch)

    def prepare_all(jobs: list[tuple[int, int, NDArray[np.int64], bool]]) -> list[Slice]:
        return [prepare(*job) for job in jobs]

    def jobs(epoch: int) -> Iterator[list[tuple[int, int, NDArray[np.int64], bool]]]:
        shuffle = [seed, epoch] if config.shuffle == "every_epoch" else [seed]
        order = np.random.default_rng(shuffle).permutation(len(labels))
        cuts = list(_cut(order, config, images.shape[1]))
        numbered = [(epoch, number, chosen, number == len(cuts) - 1) for number, chosen in enumerate(cuts)]
        # A short batch leaves no time to prepare the next slice, so it is prepared with the previous one.
        short = cuts[-1].shape[1] < config.batch_size and len(cuts) > 1
        yield from ([job] for job in (numbered[:-2] if short else numbered))
        if short:
            yield numbered[-2:]

    epochs = range(first_epoch, config.epochs + 1)
    alike = config.shuffle == "once" and not config.augment.is_on
    if alike and images.nbytes <= config.slice_megabytes * 2**20:
        laid_out = [part for several in jobs(first_epoch) for part in prepare_all(several)]
        for _ in epochs:
            yield from laid_out
        return
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as ahead:
        waiting = None
        for several in (several for epoch in epochs for several in jobs(epoch)):
            prepared, waiting = waiting, ahead.submit(prepare_all, several)
            if prepared:
                yield from prepared.result()
        if waiting:
            yield from waiting.result()


def gather(images: NDArray[np.uint8], chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return `images[chosen]` in bounded memory, even if the images are memory-mapped."""
    if not isinstance(images, np.memmap):
        return images[chosen]
    path = str(images.filename)
    gathered = np.empty((len(chosen), images.shape[1]), np.uint8)
    # In file order, and with a new mapping for each piece: pages that were read count as memory until their
    # mapping is closed.
    for piece in np.array_split(np.argsort(chosen), ceil(images.nbytes / _PIECE_BYTES)):
        mapped = np.memmap(path, np.uint8, "r", images.offset, images.shape)
        gathered[piece] = mapped[chosen[piece]]
    return gathered


def _cut(order: NDArray[np.int64], config: TrainSection, pixels: int) -> Iterator[NDArray[np.int64]]:
    """Yield the order in blocks (steps, batch) of bounded size; the last block may be one short batch."""
    batch_size = config.batch_size
    per_slice = max(1, config.slice_megabytes * 2**20 // (batch_size * pixels)) * batch_size
    whole = len(order) // batch_size * batch_size
    for start in range(0, whole, per_slice):
        yield order[start : min(start + per_slice, whole)].reshape(-1, batch_size)
    if whole < len(order):
        yield order[whole:].reshape(1, -1)
