"""Read the outcome of a trial's training from its artifacts; test results are not part of it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts.history import Epoch, read_history
from pipeline.artifacts.workspace import Workspace
from pipeline.config.params import dump
from pipeline.config.schema import OBJECTIVES_BY_EPOCH, Config
from pipeline.errors import PipelineError
from pipeline.trials.run_cache import Known


@dataclass(frozen=True)
class Outcome:
    """The result of a training: its run, and the best epoch, whose weights the model has."""

    id: str
    run: str  # the run's name
    weights_sha256: str
    parameters: int
    epochs: int
    best: Epoch
    val_macro_f1: float | None = None
    validation: str = ""  # the digest of the validation images

    @property
    def values(self) -> dict[str, float]:
        """The values that a sweep can optimise, by the names of the objectives."""
        of_validation = {name: getattr(self.best, name) for name in OBJECTIVES_BY_EPOCH}
        of_validation["val_macro_f1"] = self.val_macro_f1
        found = {name: value for name, value in of_validation.items() if value is not None}
        return {**found, "parameters": self.parameters}

    @classmethod
    def read(cls, run: Path, history: Path) -> "Outcome":
        """Read the outcome from models/run.json and models/history.csv.

        Raises:
            PipelineError: If one of them is missing or damaged.
        """
        best = read_history(history).best
        try:
            known = json.loads(run.read_text(encoding="utf-8"))
            result = known["result"]
            return cls(
                known["id"],
                known["name"],
                result["weights_sha256"],
                result["parameters"],
                result["epochs"],
                best,
                result.get("val_macro_f1"),
                known["data"]["splits"]["validation"]["sha256"],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise PipelineError(f"{run} has no result of a training: run `dvc repro`.") from None


def outcome_of(known: Known) -> Outcome | None:
    """Return the outcome of a trial from DVC's cache, or None if it was never trained."""
    paths = Workspace(Path())
    run, history = (known.outputs.get(str(path)) for path in (paths.run, paths.history))
    return Outcome.read(run, history) if run and history else None


def key_of(config: Config) -> str:
    """Return a key of 16 hex digits that distinguishes the trials of one version of the code."""
    return hashlib.sha256(dump(config).encode()).hexdigest()[:16]
