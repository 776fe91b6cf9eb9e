"""Record which artifacts were computed in this workspace, and when; others were restored from DVC's cache.

DVC does not record that, and reports of changes show it.
"""

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pipeline.artifacts.workspace import Workspace, sha256


def note_computed(workspace: Workspace, stage: str) -> None:
    """Record that `stage` has just written its outputs."""
    file, result = _file(workspace), _result(workspace, stage)
    file.parent.mkdir(parents=True, exist_ok=True)
    line = {"stage": stage, "result": sha256(result), "when": datetime.now(UTC).isoformat(timespec="seconds")}
    with file.open("a", encoding="utf-8") as lines:
        # A line break at the start ends what a full disk left of an earlier line.
        lines.write(f"\n{json.dumps(line)}\n")


def computed_when(workspace: Workspace, stage: str) -> str | None:
    """Return when the present outputs of `stage` were last computed here, in ISO 8601; None if never."""
    file, result = _file(workspace), _result(workspace, stage)
    if not file.exists() or not result.exists():
        return None
    digest = sha256(result)
    latest = None
    for line in file.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):  # A full disk leaves half a line.
            noted = json.loads(line)
            if (noted["stage"], noted["result"]) == (stage, digest):
                latest = str(noted["when"])
    return latest


def _file(workspace: Workspace) -> Path:
    return workspace.scratch / "computed.jsonl"


def _result(workspace: Workspace, stage: str) -> Path:
    """Return a small output that differs between results of the stage."""
    results = {
        "compose": workspace.params,
        "fetch": workspace.raw / "test_labels.npy",
        "preprocess": workspace.dataset,
        "train": workspace.run,
        "evaluate": workspace.metrics,
    }
    return results[stage]
