"""What the processes of a trial know of the trial: handed down from the sweep in one environment variable."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

_VARIABLE = "PIPELINE_TRIAL"


@dataclass(frozen=True)
class Pruning:
    """What a training must know to be compared, epoch by epoch, with the other trials of its search."""

    journal: str  # the file with the search's study
    trial: int  # its number in the study
    pruner: Literal["median", "hyperband"]
    objective: str
    epochs: int  # of a whole training


@dataclass(frozen=True)
class TrialContext:
    """Whose trial a process works for; the default: nobody's, as under `dvc repro`."""

    sweep: str = ""  # the id of the sweep
    differs: Mapping[str, str] = field(default_factory=dict)  # the values by which it differs from the others
    pruning: Pruning | None = None  # how the training is compared with others
    origin: str = ""  # a file with the commit and the changes that the snapshot of the code was made from
    worker: str = ""  # the address of the warm worker that runs its stages

    def as_environment(self) -> dict[str, str]:
        """The variable that hands it down to the processes that get it."""
        return {_VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def current(cls) -> "TrialContext":
        """What this process was given."""
        if not (text := os.environ.get(_VARIABLE)):
            return cls()
        values = json.loads(text)
        return cls(**values | {"pruning": values["pruning"] and Pruning(**values["pruning"])})
