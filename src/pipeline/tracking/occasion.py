"""An occasion of a training: when, where and from which code it was done.

The run is what any of its occasions makes. Occasions lie in `.pipeline/occasions/RUN`, one file each, for as
long as the run can be rebuilt, and MLflow shows them all at the run.
"""

import json
import shlex
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.config.schema import Config
from pipeline.console import brief
from pipeline.environment import device_tags
from pipeline.tracking.lineage import Code, environment_tags

OCCASIONS = "occasions"  # the folder, in .pipeline and in a DVC remote
# Tags of an occasion that may explain why another one gave other weights.
_EXPLAIN = ("processor", "device", "platform", "package.", "environment.")


@dataclass(frozen=True)
class Occasion:
    """One time that a run was trained; times in milliseconds since 1970."""

    id: str  # 12 hex digits, random
    start: int
    config: Mapping[str, Any]  # all of it, also what train does not read
    label: str  # what the run is called in MLflow if this occasion is its first
    command: str  # that started it
    code: Code
    tags: Mapping[str, str] = field(default_factory=dict)  # of the machine and the packages
    # What came of it, once it has ended well.
    weights_sha256: str | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    reproduction: str = ""  # what came of it as a rebuilding of the run, in words; empty: it was none

    @classmethod
    def begin(cls, config: Config, code: Code, label: str) -> "Occasion":
        """The occasion that starts now in this process."""
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
        """The same with what came of it."""
        seconds = round((now() - self.start) / 1000, 2)
        return replace(
            self, weights_sha256=weights_sha256, seconds=seconds, cpu_seconds=round(cpu_seconds, 2)
        )

    @property
    def summary(self) -> str:
        """A line for people: when, from which commit, which weights."""
        date = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.start / 1000))
        weights = f"weights {self.weights_sha256[:12]}" if self.weights_sha256 else "not ended"
        reproduction = f", {self.reproduction}" if self.reproduction else ""
        return f"{date} UTC, {self.code.summary}, {weights}{reproduction}"

    def dump(self) -> str:
        """JSON for `load`."""
        # A patch may hold bytes that are no UTF-8, which ASCII alone takes through JSON.
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def load(cls, text: str) -> "Occasion":
        """Read what `dump` wrote.

        Raises:
            ValueError, KeyError, TypeError: it did not.
        """
        values = json.loads(text)
        return cls(**values | {"code": Code(**values["code"])})


def label_of(differs: Mapping[str, str]) -> str:
    """What differs, as the beginning of a run's name: learning_rate=0.01,seed=1."""
    return ",".join(f"{key.rpartition('.')[2]}={brief(value)}" for key, value in differs.items())[:80]


def keep(occasion: Occasion, run: str, workspace: Workspace) -> None:
    """Write an occasion that has ended to where those of the repository lie."""
    write_text(_folder(workspace, run) / f"{occasion.id}.json", occasion.dump())


def occasions_of(workspace: Workspace, run: str) -> list[Occasion]:
    """The occasions of a run that are known here, the first one first; damaged ones are left out."""
    found = []
    for path in _folder(workspace, run).glob("*.json"):
        try:
            found.append(Occasion.load(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError):
            continue
    return sorted(found, key=lambda occasion: (occasion.start, occasion.id))


def explain_difference(one: Occasion, other: Occasion) -> str:
    """What two occasions that gave different weights differ in, for a message."""
    differences = [
        f"{key} {one.tags.get(key, 'unknown')} and {other.tags.get(key, 'unknown')}"
        for key in sorted({*one.tags, *other.tags})
        if key.startswith(_EXPLAIN) and one.tags.get(key) != other.tags.get(key)
    ]
    return "; ".join(differences) or "nothing that is recorded differs between the two"


def others_weights(occasion: Occasion, earlier: Sequence[Occasion]) -> Occasion | None:
    """The first of the earlier occasions if it gave other weights."""
    ended = [other for other in earlier if other.weights_sha256 and other.id != occasion.id]
    return ended[0] if ended and ended[0].weights_sha256 != occasion.weights_sha256 else None


def _folder(workspace: Workspace, run: str) -> Path:
    return workspace.scratch / OCCASIONS / run


def now() -> int:
    """The time in milliseconds since 1970, as MLflow has it."""
    return int(time.time() * 1000)
