"""The report of a sweep: the command and the result of each trial, in a file that outlives the sweep.

The leaderboard, the figures, MLflow's parent run and `pipeline adopt` are all made from this file.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.config.schema import TrackingSection
from pipeline.console import warn
from pipeline.errors import PipelineError
from pipeline.tracking.mlflow_run import Status
from pipeline.trials.outcome import Outcome

TrialStatus = Literal["waiting", "running", "known", "done", "pruned", "failed", "stopped"]

# 1 if larger values of an objective are better, else -1. Test images are never used to choose.
SIGN = {"val_accuracy": 1, "val_loss": -1, "val_macro_f1": 1, "parameters": -1}


@dataclass(frozen=True)
class Trial:
    """A trial of a sweep: how it differs from the others, its state and its result."""

    number: int  # from 1, in the order of the plan
    key: str = ""  # identifies its values, 16 hex digits; "" if they are not known yet
    overrides: tuple[str, ...] = ()  # all overrides, in Hydra's syntax
    differs: Mapping[str, str] = field(default_factory=dict)  # the values of the swept keys
    state: TrialStatus = "waiting"
    error: str = ""  # one sentence, if it failed
    run_id: str | None = None  # the pipeline's id of the training, which its run has as the tag pipeline.id
    run: str | None = None  # the name of that run
    values: Mapping[str, float] = field(default_factory=dict)  # those of the best epoch, by objective
    validation: str = ""  # the digest of the images that they were measured on
    start: float | None = None  # seconds since 1970
    seconds: float | None = None  # how long it took

    @property
    def has_result(self) -> bool:
        """Whether its training was completed, in this sweep or earlier."""
        return self.state in ("known", "done")

    @property
    def has_ended(self) -> bool:
        """Whether it neither runs nor waits to run."""
        return self.state not in ("waiting", "running")

    def ended(self, state: TrialStatus, outcome: Outcome | None = None, error: str = "") -> "Trial":
        """Return the trial as ended now, with its state, duration and outcome."""
        # A clock that was set back in the meantime makes no negative time.
        seconds = None if self.start is None else max(0.0, time.time() - self.start)
        ended = replace(self, state=state, error=error, seconds=seconds)
        if outcome is None:
            return ended
        return replace(
            ended, run_id=outcome.id, run=outcome.run, values=outcome.values, validation=outcome.validation
        )

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Trial":
        """Restore a trial from the mapping that `asdict` made of it."""
        return cls(**{**fields, "overrides": tuple(fields["overrides"])})

    @classmethod
    def read(cls, path: Path) -> "Trial | None":
        """Read the file of a trial in the folder of its sweep; return None if it is missing or damaged.

        Of a damaged file nothing is lost: a trial that counts as not started is run, or restored, again.
        """
        try:
            return cls.of(json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True)
class Report:
    """A sweep and its trials; times in milliseconds since 1970."""

    id: str  # 16 hex digits, the same for the same command and code
    name: str  # the name of the parent run
    command: tuple[str, ...]  # the overrides of the command line
    sweeper: str
    launcher: str
    objectives: tuple[str, ...]  # the first one decides the rank
    space: Mapping[str, Any]  # by key, the values or the text of a distribution
    tracking: Mapping[str, Any]  # the section `tracking` of the configuration, as plain values
    start: int
    end: int | None = None
    status: Status = "RUNNING"
    trials: tuple[Trial, ...] = ()

    def write(self, folder: Path) -> None:
        """Write report.json in `folder`, whole or not at all."""
        write_text(_file(folder), json.dumps(asdict(self), ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Report":
        """Read what `write` wrote.

        Raises:
            PipelineError: If the file is missing or damaged.
        """
        try:
            content = json.loads(_file(folder).read_text(encoding="utf-8"))
            content["trials"] = tuple(map(Trial.of, content["trials"]))
            TrackingSection(**content["tracking"])
            if not isinstance(content["start"], int):
                raise TypeError("it has no time")  # noqa: TRY301
            lists = {key: tuple(content[key]) for key in ("command", "objectives")}
            return cls(**content | lists)
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = " ".join(str(error).split())
            raise PipelineError(
                f"{_file(folder)} is not a report of a sweep ({why}): run the sweep again, or delete it."
            ) from None


def reports(workspace: Workspace) -> list[tuple[Path, Report]]:
    """Return the folder and the report of each sweep that ever ran in the repository, latest first.

    A damaged report is left out, with a warning.
    """
    sweeps = []
    for path in workspace.sweeps.glob("*/report.json"):
        try:
            sweeps.append((path.parent, Report.read(path.parent)))
        except PipelineError as error:
            warn(str(error))
    return sorted(sweeps, key=lambda sweep: sweep[1].start, reverse=True)


def _file(folder: Path) -> Path:
    return folder / "report.json"
