"""Checkpoints: the state of a training between two epochs, so that one that was killed goes on.

What is random in an epoch follows from (seed, epoch), so a training that goes on from a checkpoint ends at
the weights of one that was never interrupted, bit for bit.
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
# The code that decides about the weights, beside the model's own, of which the configuration has a digest.
_CODE = (
    "artifacts/processed.py",
    "environment.py",
    "models/__init__.py",
    "stages/train.py",
    "training/**/*.py",
)


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
        self._path = path
        self._every = Every(seconds)
        self._cpu_start = time.process_time()

    @classmethod
    def of(cls, config: Config, workspace: Workspace) -> "Checkpoints":
        """The checkpoint for these values, data, code and packages, whichever workspace they meet in."""
        digest = hashlib.sha256(sha256(workspace.dataset).encode())
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
        """How many epochs the checkpoint has; 0 if there is none, or none that can be read."""
        try:
            with np.load(self._path, allow_pickle=False) as file:
                return len(json.loads(file["meta"].tobytes())["epochs"])
        # `load` says what is wrong with it.
        except _DAMAGED:
            return 0

    def load(self, like: TrainState) -> TrainState | None:
        """The state to go on from; a damaged one, or one unlike that before the first epoch, is not used."""
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
        """Of the process since this was made, and of those that were cut off before."""
        return time.process_time() - self._cpu_start

    @property
    def due(self) -> bool:
        """Whether the last one is long enough ago."""
        return self._every.due

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
        self._every.restart()

    def discard(self) -> None:
        """The training has ended and its model is written."""
        self._path.unlink(missing_ok=True)


def _refuse_unlike(state: TrainState, like: TrainState) -> None:
    """Raise ValueError if `state` can't be one of the training that begins with `like`."""
    numbers = [epoch.epoch for epoch in state.epochs]
    if (
        not numbers
        or numbers != list(range(1, len(numbers) + 1))
        or not 0 <= state.best_epoch <= len(numbers)
    ):
        raise ValueError("its epochs are no sequence")
    _refuse_others(state.network, like.network, "network")
    _refuse_others(state.optimizer, like.optimizer, "optimizer")
    if state.best_epoch or state.best_weights:
        _refuse_others(state.best_weights, like.best_weights, "best weights")


def _refuse_others(found: Arrays, expected: Arrays, name: str) -> None:
    shapes = [[(array.shape, array.dtype) for array in arrays] for arrays in (found, expected)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the arrays of its {name} have other shapes or types")
    if any(np.isnan(array).any() for array in found):
        raise ValueError(f"its {name} holds values that are no numbers")
