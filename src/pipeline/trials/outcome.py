"""The outcome of a trial's training, read from its artifacts; nothing of the test images."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts.history import Epoch, read_history
from pipeline.artifacts.workspace import Workspace
from pipeline.config.params import dump
from pipeline.config.schema import OBJECTIVES_BY_EPOCH, Config
from pipeline.trials.run_cache import Known


@dataclass(frozen=True)
class Outcome:
    """A run, and its best epoch, whose weights the model has."""

    id: str
    run: str
    weights_sha256: str
    parameters: int
    epochs: int
    best: Epoch
    val_macro_f1: float | None = None

    @property
    def values(self) -> dict[str, float]:
        """What a sweep may aim at, by the objectives' names."""
        of_validation = {name: getattr(self.best, name) for name in OBJECTIVES_BY_EPOCH}
        of_validation["val_macro_f1"] = self.val_macro_f1
        found = {name: value for name, value in of_validation.items() if value is not None}
        return {**found, "parameters": self.parameters}

    @classmethod
    def read(cls, run: Path, history: Path) -> "Outcome":
        """The outcome that models/run.json and models/history.csv describe."""
        known = json.loads(run.read_text(encoding="utf-8"))
        result = known["result"]
        return cls(
            known["id"],
            known["name"],
            result["weights_sha256"],
            result["parameters"],
            result["epochs"],
            read_history(history).best,
            result.get("val_macro_f1"),
        )


def outcome_of(known: Known) -> Outcome | None:
    """What DVC's cache has of a trial's training, if it was ever trained."""
    paths = Workspace(Path())
    run, history = (known.outputs.get(str(path)) for path in (paths.run, paths.history))
    return Outcome.read(run, history) if run and history else None


def key_of(config: Config) -> str:
    """Tells the trials of one version of the code apart: 16 hex digits."""
    return hashlib.sha256(dump(config).encode()).hexdigest()[:16]
