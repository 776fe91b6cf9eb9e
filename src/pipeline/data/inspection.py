"""Inspection: statistics that are collected while the images of a split are being written."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.data.division import fingerprints_of
from pipeline.data.near_duplicates import Hasher

Images = NDArray[np.uint8]


@dataclass
class Inspection:
    """Statistics of the images of a split, complete once all have passed through `watch`; (n,) each."""

    hasher: Hasher
    # How often each grey level occurs: int64 (256,).
    levels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    # Numbers that are equal only for equal pixels.
    fingerprints: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    # Perceptual hashes, which have most bits in common for images that look alike.
    hashes: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    # The mean level, and the difference between the highest and the lowest one.
    brightness: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    contrast: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))

    def watch(self, pieces: Iterable[Images]) -> Iterator[Images]:
        """Yield the images unchanged, uint8 (some, pixels) each, and collect their statistics."""
        parts = []
        for piece in pieces:
            brightness, contrast = piece.mean(axis=1, dtype=np.float32), piece.max(axis=1) - piece.min(axis=1)
            parts.append((fingerprints_of([piece]), self.hasher.hashes(piece), brightness, contrast))
            self.levels += np.bincount(piece.ravel(), minlength=256)
            yield piece
        if parts:
            columns = map(np.concatenate, zip(*parts, strict=True))
            self.fingerprints, self.hashes, self.brightness, self.contrast = columns
