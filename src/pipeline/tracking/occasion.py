"""Occasions of a training: when, where and from which code it was executed.

A run is identified by its inputs, so it can be trained on several occasions. They are stored in
`.pipeline/occasions/RUN`, one file each, for as long as the run can be rebuilt. MLflow shows each as a tag of
its run with a one-line summary, and a JSON artifact.
"""

import json
import shlex
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.config.schema import Config, TrackingSection
from pipeline.environment import device_tags
from pipeline.errors import PipelineError
from pipeline.tracking.failures import telling_failures
from pipeline.tracking.lineage import Code, environment_tags
from pipeline.tracking.mlflow_run import EVALUATION_TAG, ID_TAG, OCCASION_TAG, MlflowRun
from pipeline.tracking.store import open_store, restore_command

OCCASIONS = "occasions"  # the folder, in .pipeline, in a DVC remote and among the artifacts of a run
# Prefixes of the tags that may explain why two occasions gave different weights.
_EXPLAINING_TAGS = ("processor", "device", "platform", "package.", "environment.")


@dataclass(frozen=True)
class Occasion:
    """One execution of a training."""

    id: str  # 12 random hex digits
    start: int  # milliseconds since 1970
    config: Mapping[str, Any]  # the whole configuration, including what train does not read
    label: str  # the name of the run in MLflow if this is its first occasion
    command: str  # the command that started it
    code: Code
    tags: Mapping[str, str] = field(default_factory=dict)  # describe the machine and the packages
    # The results, once the training has ended successfully.
    weights_sha256: str | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    reproduction: str = ""  # the outcome in words, if the occasion was a reproduction of the run

    @classmethod
    def begin(cls, config: Config, code: Code, label: str) -> "Occasion":
        """Return the occasion that starts now in this process."""
        return cls(
            id=uuid.uuid4().hex[:12],
            start=now(),
            config=config.model_dump(mode="json"),
            label=label,
            command=shlex.join(sys.argv),
            code=code,
            tags=environment_tags() | device_tags(config.train.target),
        )

    def ended(self, weights_sha256: str, cpu_seconds: float) -> "Occasion":
        """Return a copy with the results of the training."""
        # A clock that was set back in the meantime makes no negative time.
        seconds = max(0.0, round((now() - self.start) / 1000, 2))
        return replace(
            self, weights_sha256=weights_sha256, seconds=seconds, cpu_seconds=round(cpu_seconds, 2)
        )

    @property
    def summary(self) -> str:
        """A human-readable line: the time, the commit and the weights."""
        date = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.start / 1000))
        weights = f"weights {self.weights_sha256[:12]}" if self.weights_sha256 else "not ended"
        reproduction = f", {self.reproduction}" if self.reproduction else ""
        return f"{date} UTC, {self.code.summary}, {weights}{reproduction}"

    def dump(self) -> str:
        """Return the occasion as JSON, which `load` reads."""
        # A patch may contain bytes that are not UTF-8; only the ASCII form of JSON preserves them.
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def load(cls, text: str) -> "Occasion":
        """Return the occasion that `dump` wrote.

        Raises:
            ValueError, KeyError, TypeError: If `text` was not written by `dump`.
        """
        values = json.loads(text)
        return cls(**values | {"code": Code(**values["code"])})


def keep(occasion: Occasion, run: str, workspace: Workspace) -> None:
    """Store an occasion that has ended with those of the repository."""
    write_text(_folder(workspace, run) / f"{occasion.id}.json", occasion.dump())


def occasions_of(workspace: Workspace, run: str) -> list[Occasion]:
    """Return the stored occasions of a run, the oldest first, without damaged ones."""
    found = []
    for path in _folder(workspace, run).glob("*.json"):
        try:
            found.append(Occasion.load(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError):
            continue
    return sorted(found, key=lambda occasion: (occasion.start, occasion.id))


def label_of(run: Mapping[str, Any], occasions: Iterable[Occasion]) -> str:
    """Return the name that a run got in MLflow when it was trained here, or else the one in run.json."""
    trained = (occasion.label for occasion in occasions if not occasion.reproduction)
    return next(trained, str(run.get("name", "–")))


def log_occasion(run: MlflowRun, occasion: Occasion) -> None:
    """Add an occasion that has ended to its run in MLflow, unless it is already there."""
    tag = f"{OCCASION_TAG}.{occasion.id}"
    if occasion.weights_sha256 and (tag not in run.tags or not run.is_intact):
        run.log_bytes(occasion.dump().encode(), OCCASIONS, f"{occasion.id}.json")
        run.set_tags({tag: occasion.summary})


def show_occasion(occasion: Occasion, run: str, tracking: TrackingSection, workspace: Workspace) -> None:
    """Add an occasion that has ended to the run with the pipeline's id `run`, if MLflow has that run.

    Raises:
        PipelineError: If MLflow can't be reached, or the run was deleted there.
    """
    with telling_failures(tracking, workspace):
        store = open_store(tracking, workspace)
        found = store.find({ID_TAG: run}, without=EVALUATION_TAG)
        if found and found.info.lifecycle_stage == "deleted":
            restore = restore_command(found.info.run_id, tracking, workspace)
            raise PipelineError(f"The run was deleted in MLflow: `{restore}` brings it back.")
        if found:
            log_occasion(MlflowRun(store.client, found), occasion)


def explain_difference(one: Occasion, other: Occasion) -> str:
    """Return in words how two occasions that gave different weights differ."""
    differences = [
        f"{key} {one.tags.get(key, 'unknown')} and {other.tags.get(key, 'unknown')}"
        for key in sorted({*one.tags, *other.tags})
        if key.startswith(_EXPLAINING_TAGS) and one.tags.get(key) != other.tags.get(key)
    ]
    return "; ".join(differences) or "nothing that is recorded differs between the two"


def _folder(workspace: Workspace, run: str) -> Path:
    return workspace.scratch / OCCASIONS / run


def now() -> int:
    """Return the time in milliseconds since 1970, which is the unit that MLflow uses."""
    return int(time.time() * 1000)
