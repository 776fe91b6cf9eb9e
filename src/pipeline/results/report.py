"""The report of a sweep: what was asked for and the result of each trial, in a file that outlives the sweep.

It is all that the leaderboard, the figures, MLflow's parent run and `pipeline adopt` know of a sweep.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.console import warn
from pipeline.errors import PipelineError
from pipeline.trials.outcome import Outcome

TrialStatus = Literal["waiting", "running", "known", "done", "pruned", "failed", "stopped"]
SweepStatus = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

# What an objective is better for: more or less of it. Test images are never asked.
SIGN = {"val_accuracy": 1, "val_loss": -1, "val_macro_f1": 1, "parameters": -1}


@dataclass(frozen=True)
class Trial:
    """A trial of a sweep: how it differs from the others, its status, its result."""

    number: int  # from 1, in the order of the plan
    key: str = ""  # tells it from trials with other values, 16 hex digits; "": its values are not known yet
    overrides: tuple[str, ...] = ()  # all of them, as Hydra takes them
    differs: Mapping[str, str] = field(default_factory=dict)  # of these, the keys that the sweep is over
    state: TrialStatus = "waiting"
    error: str = ""  # one sentence, if it failed
    run_id: str | None = None  # the pipeline's own id of the training: the tag pipeline.id of its run
    run: str | None = None  # the name of that run
    values: Mapping[str, float] = field(default_factory=dict)  # of the best epoch, by objective
    start: float | None = None  # seconds since 1970
    seconds: float | None = None  # that it took

    @property
    def has_result(self) -> bool:
        """Whether it was trained to its end, now or ever."""
        return self.state in ("known", "done")

    def ended(self, state: TrialStatus, outcome: Outcome | None = None, error: str = "") -> "Trial":
        """The trial as it has ended now, with what came of it."""
        seconds = None if self.start is None else time.time() - self.start
        ended = replace(self, state=state, error=error, seconds=seconds)
        if outcome is None:
            return ended
        return replace(ended, run_id=outcome.id, run=outcome.run, values=outcome.values)

    @classmethod
    def of(cls, noted: Mapping[str, Any]) -> "Trial":
        """The trial that `asdict` made a mapping of."""
        return cls(**{**noted, "overrides": tuple(noted["overrides"])})


@dataclass(frozen=True)
class Report:
    """A sweep and its trials; times in milliseconds since 1970."""

    id: str  # 16 hex digits, the same for the same command and code
    name: str  # of the parent run
    command: tuple[str, ...]  # the overrides as they were typed
    sweeper: str
    launcher: str
    objectives: tuple[str, ...]  # the first ranks
    space: Mapping[str, Any]  # by key: the values, or the text of a distribution
    tracking: Mapping[str, Any]  # the section of the configuration, as plain values
    start: int
    end: int | None = None
    status: SweepStatus = "RUNNING"
    trials: tuple[Trial, ...] = ()

    def write(self, folder: Path) -> None:
        """Write report.json in `folder`, whole or not at all."""
        write_text(_file(folder), json.dumps(asdict(self), ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Report":
        """Read what `write` wrote.

        Raises:
            PipelineError: the file is missing or damaged.
        """
        try:
            content = json.loads(_file(folder).read_text(encoding="utf-8"))
            content["trials"] = tuple(map(Trial.of, content["trials"]))
            lists = {key: tuple(content[key]) for key in ("command", "objectives")}
            return cls(**content | lists)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PipelineError(
                f"{_file(folder)} is no report of a sweep ({error}): run the sweep again, or delete it."
            ) from None


def reports(workspace: Workspace) -> list[tuple[Path, Report]]:
    """The folder and the report of each sweep that ever ran in the repository, the latest first.

    A damaged one is named and left out.
    """
    found = []
    for path in workspace.sweeps.glob("*/report.json"):
        try:
            found.append((path.parent, Report.read(path.parent)))
        except PipelineError as error:
            warn(str(error))
    return sorted(found, key=lambda sweep: sweep[1].start, reverse=True)


def _file(folder: Path) -> Path:
    return folder / "report.json"
