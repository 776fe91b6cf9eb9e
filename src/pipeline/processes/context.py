"""The context of a trial: what a sweep tells the trial's processes, in one environment variable."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

_VARIABLE = "PIPELINE_TRIAL"


@dataclass(frozen=True)
class Pruning:
    """What a training needs to be compared, epoch by epoch, with the other trials of its search."""

    journal: str  # the journal file of the search's study
    trial: int  # the trial's number in the study
    pruner: Literal["median", "hyperband"]
    objective: str
    epochs: int  # the number of epochs of a complete training


@dataclass(frozen=True)
class TrialContext:
    """The trial that a process belongs to; by default none, as with `dvc repro`."""

    sweep: str = ""  # the id of the sweep
    differs: Mapping[str, str] = field(default_factory=dict)  # the values in which it differs from the others
    pruning: Pruning | None = None  # how the training is compared with others
    origin: str = ""  # a file with the commit and the changes that the snapshot of the code was made from
    worker: str = ""  # the address of the warm worker that runs its stages

    def as_environment(self) -> dict[str, str]:
        """Return the environment variable that passes the context to other processes."""
        return {_VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def current(cls) -> "TrialContext":
        """Return the context that this process was started with."""
        if not (text := os.environ.get(_VARIABLE)):
            return cls()
        values = json.loads(text)
        return cls(**values | {"pruning": values["pruning"] and Pruning(**values["pruning"])})
