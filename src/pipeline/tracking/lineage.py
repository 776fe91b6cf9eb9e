"""Where a run comes from: the code, the data, the platform and the packages."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import yaml

from pipeline.artifacts.workspace import Workspace

PACKAGES = ("tensorflow", "keras", "numpy", "scikit-learn", "mlflow", "dvc", "hydra-core")
_MAX_DIFF = 1_000_000
# What DVC and compose write while the pipeline runs is no change of anybody's.
_SOURCES = ("--", ".", ":!dvc.lock", ":!params.yaml")


def lineage(workspace: Workspace) -> dict[str, Any]:
    """What a run's tags say of its origin.

    `git.*` is of the repository that owns the workspace (`unknown` outside of git), `data.*` are DVC's
    digests of the processed splits, `package.*` are versions.
    """
    # A temporary DVC experiment is a git work tree of its own; a trial is not.
    place = workspace.root if (workspace.root / ".git").exists() else workspace.home
    commit = _git(place, "rev-parse", "HEAD")
    diff = _git(place, "diff", "HEAD", *_SOURCES)
    # The diff leaves out files that git does not know yet: those that may matter are named.
    for path in _git(place, "ls-files", "--others", "--exclude-standard", "--", "src", "conf").splitlines():
        diff += f"\nnew file, not in this diff: {path}"
    tags = {
        "git.commit": os.environ.get("DVC_EXP_BASELINE_REV") or commit or "unknown",
        "git.branch": _git(place, "rev-parse", "--abbrev-ref", "HEAD") or "unknown",
        "git.dirty": str(bool(diff)).lower(),
        "platform": platform.platform(),
        "processor": _processor(),
        "package.python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            tags[f"package.{package}"] = version(package)
        except PackageNotFoundError:
            tags[f"package.{package}"] = "not installed"
    if len(diff) > _MAX_DIFF:
        diff = f"{diff[:_MAX_DIFF]}\n... cut at {_MAX_DIFF} characters\n"
    return {"tags": tags, "data": _data_digests(workspace), "uncommitted_changes": diff}


def _git(place: os.PathLike[str], *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", place, *arguments], capture_output=True, text=True, errors="replace", timeout=30
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    """The processor's name: other processors may round other bits."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _data_digests(workspace: Workspace) -> dict[str, str]:
    """DVC's md5 of each output of preprocess, by its path."""
    try:
        lock = yaml.load(workspace.dvc_lock.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        outs = lock["stages"]["preprocess"]["outs"]
    except (FileNotFoundError, KeyError, TypeError):
        return {}
    return {out["path"]: out["md5"] for out in outs}
