"""Read the state of a commit and of the workspace from git and DVC, to compare them."""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts.computed import computed_when
from pipeline.artifacts.history import Epoch, read_history
from pipeline.artifacts.workspace import Workspace, copy_file, object_in
from pipeline.config.params import parse_generated, read_generated
from pipeline.config.section import leaves
from pipeline.errors import PipelineError
from pipeline.results.predictions import Predictions, read_predictions
from pipeline.stages.__main__ import STAGES
from pipeline.tracking.lineage import fetching, git, processor
from pipeline.tracking.occasion import Occasion, occasions_of

_ARTIFACTS = ("dataset", "run", "history", "metrics", "predictions")


@dataclass(frozen=True)
class Side:
    """One state of the pipeline, as far as git and DVC's cache have it; what is missing is empty."""

    name: str
    lock: Mapping[str, Any]  # the stages of dvc.lock
    files: Workspace  # holds the artifacts that were found
    values: Mapping[str, Any]  # the configuration, by dotted keys
    metrics: Mapping[str, Any]  # the content of reports/metrics.json
    run: Mapping[str, Any]  # the content of models/run.json
    dataset: Mapping[str, Any]  # the content of data/processed/dataset.json
    epochs: Sequence[Epoch]
    predictions: Predictions
    occasions: Sequence[Occasion]  # those of the run that are known here

    @property
    def missing(self) -> list[str]:
        """The paths of the artifacts that are missing."""
        root = self.files.root
        paths = (getattr(self.files, name) for name in _ARTIFACTS)
        return [str(path.relative_to(root)) for path in paths if not path.exists()]

    @property
    def confusions(self) -> Counter[tuple[str, str]]:
        """How often each label was predicted as each other class."""
        return Counter(pair for pair in self.predictions if pair[0] != pair[1])


def _side(
    name: str, params: Mapping[str, Any], lock: Mapping[str, Any], files: Workspace, repository: Workspace
) -> Side:
    try:
        run = _json(files.run)
        return Side(
            name,
            lock.get("stages", {}),
            files,
            dict(leaves(params)),
            _json(files.metrics),
            run,
            _json(files.dataset),
            read_history(files.history).epochs if files.history.exists() else (),
            read_predictions(files.predictions) if files.predictions.exists() else (),
            occasions_of(repository, run["id"]) if run else (),
        )
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise PipelineError(
            f"An artifact of {name} is damaged ({error}): `pipeline verify --repair` restores it."
        ) from None


def _json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if not isinstance(content, dict):
        raise TypeError(f"{path.name} is not an object")
    return content


def of_workspace(workspace: Workspace) -> Side:
    """Return the current state of the workspace.

    Raises:
        PipelineError: If params.yaml or dvc.lock can't be read, as in a merge, or an artifact is damaged.
    """
    return _side("now", _generated(workspace.params), _generated(workspace.dvc_lock), workspace, workspace)


def _generated(path: Path) -> dict[str, Any]:
    return read_generated(path) if path.exists() else {}


def of_commit(revision: str, workspace: Workspace, folder: Path) -> Side:
    """Return the state of a commit, with those of its artifacts that DVC's cache has, copied to `folder`.

    The revision is any that git understands.

    Raises:
        PipelineError: If git has no repository or no such commit, or the commit has no dvc.lock that can be
            read.
    """
    commit = git(workspace.root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if commit is None and git(workspace.root, "rev-parse", "--git-dir") is None:
        raise PipelineError(
            f"There is no commit to compare with: {workspace.root} is not a git repository that git reads."
        )
    if commit is None:
        raise PipelineError(
            f"{revision!r} is not a commit that this clone has: name one with --base, or "
            f"`{fetching(workspace.root)}` may bring it."
        )
    params, lock = (_committed(name, revision, workspace) for name in ("params.yaml", "dvc.lock"))
    stages, files = lock.get("stages", {}).values(), Workspace(folder)
    digests = {out["path"]: out.get("md5") for stage in stages for out in stage.get("outs", [])}
    cache = workspace.dvc_cache()
    for name in _ARTIFACTS:
        target: Path = getattr(files, name)
        digest = digests.get(str(target.relative_to(folder)))
        if digest and (cached := object_in(cache, digest)).is_file():
            copy_file(cached, target)
    label = revision if commit.startswith(revision) else f"{revision} ({commit[:8]})"
    return _side(label, params, lock, files, workspace)


def changed_stages(base: Side, now: Side) -> list[tuple[str, str, str]]:
    """Return each stage of dvc.lock with what differs and where its result comes from."""
    rows = []
    for stage in {**base.lock, **now.lock}:
        one, other = base.lock.get(stage), now.lock.get(stage)
        if one is None or other is None:
            rows.append((stage, "added" if one is None else "removed", "–"))
            continue
        before, after = _traits(one), _traits(other)
        differs = [name for name in {**after, **before} if before.get(name) != after.get(name)]
        when = computed_when(now.files, stage) if stage in STAGES else None
        is_there = all((now.files.root / out["path"]).exists() for out in other.get("outs", []))
        source = f"computed here, {when}" if when else "from the cache" if is_there else "missing"
        rows.append((stage, ", ".join(differs) or "unchanged", source))
    return rows


def _traits(stage: Mapping[str, Any]) -> dict[str, object]:
    """Return the values, the files and the command of a stage in dvc.lock, by their names."""
    values = {key: value for file in stage.get("params", {}).values() for key, value in file.items()}
    files = {item["path"]: item for part in ("deps", "outs") for item in stage.get(part, [])}
    return {**values, **files, "its command": stage.get("cmd")}


def differs_by_rounding(workspace: Workspace) -> str:
    """Name a stage that made other bytes than the last commit from the same inputs, or return ""."""
    try:
        base = _committed("dvc.lock", "HEAD", workspace).get("stages", {})
    except PipelineError:
        return ""
    now = _generated(workspace.dvc_lock).get("stages", {})
    for stage in (stage for stage in STAGES if stage in base and stage in now and base[stage] != now[stage]):
        if any(base[stage].get(part) != now[stage].get(part) for part in ("cmd", "deps", "params")):
            return ""
        paths = [out["path"] for out in now[stage].get("outs", []) if out not in base[stage].get("outs", [])]
        return (
            f"The stage {stage} made other bytes than the last commit from the same code, data and values: "
            f"{', '.join(paths)}. Equal bytes are promised only with the packages of requirements.lock, on "
            f"x86-64 processors with AVX2; this is {processor()}."
        )
    return ""


def _committed(name: str, revision: str, workspace: Workspace) -> dict[str, Any]:
    """Return the content of params.yaml or dvc.lock in a commit."""
    text = git(workspace.root, "show", f"{revision}:./{name}")
    if text is None:
        raise PipelineError(f"The commit {revision} has no {name} to compare with.")
    try:
        return parse_generated(text, name)
    except PipelineError:
        raise PipelineError(
            f"{name} in the commit {revision} can't be read: name another commit with --base."
        ) from None
