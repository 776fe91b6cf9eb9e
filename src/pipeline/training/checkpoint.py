"""Checkpoints: the state of a training between two epochs, so that one that was killed goes on.

What is random in an epoch follows from (seed, epoch), so a training that goes on from a checkpoint ends at
the weights of one that was never interrupted, bit for bit.
"""

import hashlib
import json
import sys
import time
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.history import Epoch
from pipeline.artifacts.workspace import Workspace, atomic, sha256
from pipeline.config.schema import Config
from pipeline.console import say

Arrays = list[NDArray[np.generic]]


@dataclass(frozen=True)
class TrainState:
    """All that the next epoch depends on."""

    epochs: list[Epoch]
    network: Arrays  # every variable, also what normalisation and dropout keep
    optimizer: Arrays
    # What early stopping knows: the best value, its epoch (0: none) and that epoch's weights.
    best_value: float
    best_epoch: int
    best_weights: Arrays


class Checkpoints:
    """The checkpoint of one training, replaced as the training proceeds."""

    def __init__(self, path: Path, seconds: float | None) -> None:
        """Keep it at `path`, at most every `seconds` (None: never)."""
        self._path, self._seconds = path, seconds
        self._last = time.monotonic()
        self._cpu_start = time.process_time()

    @classmethod
    def of(cls, config: Config, workspace: Workspace) -> "Checkpoints":
        """The checkpoint for these values, these data and this code, whichever workspace they meet in."""
        digest = hashlib.sha256(sha256(workspace.dataset).encode())
        for section in (config.model, config.train):
            digest.update(section.model_dump_json().encode())
        digest.update(str(config.seed).encode())
        package = Path(__file__).parents[1]
        for source in sorted([*package.glob("models/*.py"), *package.glob("training/*.py")]):
            digest.update(source.read_bytes())
        path = workspace.scratch / "checkpoints" / f"{digest.hexdigest()[:32]}.npz"
        return cls(path, config.train.checkpoint_seconds)

    def load(self) -> TrainState | None:
        """The state to go on from; a damaged one is passed over with a warning."""
        if self._seconds is None or not self._path.exists():
            return None
        try:
            with np.load(self._path, allow_pickle=False) as file:
                meta = json.loads(file["meta"].tobytes())
                arrays = {
                    name: [file[f"{name}_{number}"] for number in range(count)]
                    for name, count in meta["counts"].items()
                }
            epochs = [Epoch(**epoch) for epoch in meta["epochs"]]
            self._cpu_start -= meta["cpu_seconds"]
            say(f"Going on after epoch {len(epochs)}, from a checkpoint.")
            return TrainState(epochs, best_value=meta["best_value"], best_epoch=meta["best_epoch"], **arrays)
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            print(
                f"warning: the checkpoint {self._path} is damaged ({error}): training starts afresh.",
                file=sys.stderr,
            )
            return None

    @property
    def cpu_seconds(self) -> float:
        """Of the process since this was made, and of those that were cut off before."""
        return time.process_time() - self._cpu_start

    @property
    def due(self) -> bool:
        """Whether the last one is long enough ago."""
        return self._seconds is not None and time.monotonic() - self._last >= self._seconds

    def save(self, now: TrainState) -> None:
        """Replace the checkpoint."""
        groups = {"network": now.network, "optimizer": now.optimizer, "best_weights": now.best_weights}
        meta = {
            "epochs": [asdict(epoch) for epoch in now.epochs],
            "best_value": now.best_value,
            "best_epoch": now.best_epoch,
            "cpu_seconds": self.cpu_seconds,
            "counts": {name: len(arrays) for name, arrays in groups.items()},
        }
        content = {f"{name}_{n}": array for name, arrays in groups.items() for n, array in enumerate(arrays)}
        content["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        with atomic(self._path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **content)
        self._last = time.monotonic()

    def discard(self) -> None:
        """The training has ended and its model is written."""
        self._path.unlink(missing_ok=True)
