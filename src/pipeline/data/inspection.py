"""Inspection: statistics that are collected while the images of a split are being written."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

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
    _parts: dict[str, list[NDArray[np.generic]]] = field(default_factory=dict)

    def watch(self, pieces: Iterable[Images]) -> Iterator[Images]:
        """Yield the images unchanged, uint8 (some, pixels) each, and collect their statistics."""
        for piece in pieces:
            statistics: dict[str, NDArray[Any]] = {
                "fingerprints": fingerprints_of([piece]),
                "hashes": self.hasher.hashes(piece),
                "brightness": piece.mean(axis=1, dtype=np.float32),
                "contrast": piece.max(axis=1) - piece.min(axis=1),
            }
            for name, values in statistics.items():
                self._parts.setdefault(name, []).append(values)
            self.levels += np.bincount(piece.ravel(), minlength=256)
            yield piece

    @property
    def fingerprints(self) -> NDArray[np.uint64]:
        """Numbers that are equal only for equal pixels."""
        return self._all("fingerprints", np.uint64)

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """Perceptual hashes, which have most bits in common for images that look alike."""
        return self._all("hashes", np.uint64)

    @property
    def brightness(self) -> NDArray[np.float32]:
        """The mean level of each image."""
        return self._all("brightness", np.float32)

    @property
    def contrast(self) -> NDArray[np.uint8]:
        """The difference between the highest and lowest level of each image."""
        return self._all("contrast", np.uint8)

    def _all(self, name: str, dtype: type[np.generic]) -> NDArray[Any]:
        return np.concatenate([np.empty(0, dtype), *self._parts.get(name, [])])
