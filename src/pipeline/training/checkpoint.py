"""Checkpoints: the state of a training between two epochs, so that an interrupted training can resume.

Everything random in an epoch is derived from (seed, epoch), so a resumed training ends with the same weights
as one that was never interrupted, bit for bit.
"""

import hashlib
import json
import time
import zipfile
import zlib
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.history import Epoch
from pipeline.artifacts.workspace import Workspace, atomic, sha256
from pipeline.config.schema import Config
from pipeline.console import Every, say, warn

_DAMAGED = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError),
    *(MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error),
)

Arrays = list[NDArray[np.generic]]

_PACKAGES = {"tensorflow": ("keras", "tensorflow", "numpy"), "jax": ("keras", "jax", "jaxlib", "numpy")}
# The code that determines the weights; the digest of the model's module is in the configuration.
_CODE = (
    "artifacts/processed.py",
    "environment.py",
    "models/__init__.py",
    "stages/train.py",
    "training/**/*.py",
)


@dataclass(frozen=True)
class TrainState:
    """Everything that the next epoch depends on."""

    epochs: list[Epoch]
    network: Arrays  # all variables, including the state of normalisation and dropout
    optimizer: Arrays
    # The state of early stopping: the best value, its epoch (0 if there is none) and its weights.
    best_value: float
    best_epoch: int
    best_weights: Arrays


class Checkpoints:
    """The checkpoint of one training, which is overwritten as the training proceeds."""

    def __init__(self, path: Path, seconds: float | None) -> None:
        """Use the file `path`, and save at most every `seconds`; None disables checkpoints."""
        self._path = path
        self._every = Every(seconds)
        self._cpu_start = time.process_time()

    @classmethod
    def of(cls, config: Config, workspace: Workspace) -> "Checkpoints":
        """Return the checkpoint that belongs to these values, data, code and packages."""
        digest = hashlib.sha256(sha256(workspace.training_dataset).encode())
        for part in (
            config.model.model_dump_json(),
            config.train.model_dump_json(),
            config.modules.model,
            config.modules.backend,
            str(config.seed),
            *(f"{name}=={version(name)}" for name in _PACKAGES[config.train.backend]),
        ):
            digest.update(part.encode() + b"\0")
        package = Path(__file__).parents[1]
        for source in sorted(path for pattern in _CODE for path in package.glob(pattern)):
            digest.update(source.read_bytes())
        path = workspace.scratch / "checkpoints" / f"{digest.hexdigest()[:32]}.npz"
        return cls(path, config.train.checkpoint_seconds)

    @property
    def epochs(self) -> int:
        """The number of epochs in the checkpoint; 0 if there is none or it cannot be read."""
        try:
            with np.load(self._path, allow_pickle=False) as file:
                return len(json.loads(file["meta"].tobytes())["epochs"])
        # `load` reports what is wrong with it.
        except _DAMAGED:
            return 0

    def load(self, like: TrainState) -> TrainState | None:
        """Return the state to resume from, or None if there is none that matches `like`."""
        if self._every.seconds is None or not self._path.exists():
            return None
        try:
            with np.load(self._path, allow_pickle=False) as file:
                meta = json.loads(file["meta"].tobytes())
                arrays = {
                    name: [file[f"{name}_{number}"] for number in range(count)]
                    for name, count in meta["counts"].items()
                }
            epochs = [Epoch(**epoch) for epoch in meta["epochs"]]
            state = TrainState(
                epochs, best_value=float(meta["best_value"]), best_epoch=int(meta["best_epoch"]), **arrays
            )
            _refuse_unlike(state, like)
            self._cpu_start -= float(meta["cpu_seconds"])
        except _DAMAGED as error:
            warn(
                f"the checkpoint {self._path} is damaged ({error}): the training starts from its first epoch."
            )
            return None
        say(f"Going on after epoch {len(epochs)}, from a checkpoint.")
        return state

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of this training, including those of processes that were interrupted."""
        return time.process_time() - self._cpu_start

    @property
    def due(self) -> bool:
        """Whether enough time has passed since the last save."""
        return self._every.due

    def save(self, now: TrainState) -> None:
        """Overwrite the checkpoint with `now`."""
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
        self._every.restart()

    def discard(self) -> None:
        """Delete the checkpoint, once the training has ended and its model is written."""
        self._path.unlink(missing_ok=True)


def _refuse_unlike(state: TrainState, like: TrainState) -> None:
    """Raise ValueError if `state` cannot belong to the training that starts with `like`."""
    numbers = [epoch.epoch for epoch in state.epochs]
    if (
        not numbers
        or numbers != list(range(1, len(numbers) + 1))
        or not 0 <= state.best_epoch <= len(numbers)
    ):
        raise ValueError("its epochs are not in sequence")
    _refuse_others(state.network, like.network, "network")
    _refuse_others(state.optimizer, like.optimizer, "optimizer")
    if state.best_epoch or state.best_weights:
        _refuse_others(state.best_weights, like.best_weights, "best weights")


def _refuse_others(found: Arrays, expected: Arrays, name: str) -> None:
    shapes = [[(array.shape, array.dtype) for array in arrays] for arrays in (found, expected)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the arrays of its {name} have other shapes or types")
    if any(np.isnan(array).any() for array in found):
        raise ValueError(f"its {name} holds NaN values")
