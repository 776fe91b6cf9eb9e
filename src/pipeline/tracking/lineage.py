"""Where a training comes from: the commit, what was changed since, the machine and the packages."""

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.artifacts.workspace import Workspace, write_text

PACKAGES = ("tensorflow", "keras", "onnxruntime", "numpy", "scikit-learn", "mlflow", "dvc", "hydra-core")
_MAX_PATCH = 10_000_000  # bytes; what is longer is no change of code
# What DVC and compose write while the pipeline runs is no change of anybody's.
_WRITTEN = (":!dvc.lock", ":!params.yaml")
# The folders in which a file that git does not know yet may change a result.
_SOURCES = ("src", "conf", "dvc.yaml")
# A user's settings must not change what a patch looks like.
_PLAIN = ("-c", "core.quotePath=true", "-c", "diff.noprefix=false", "-c", "diff.mnemonicPrefix=false")


@dataclass(frozen=True)
class Code:
    """The code that a training ran, as far as git knows."""

    commit: str = "unknown"
    branch: str = "unknown"
    dirty: str = "unknown"  # true or false; unknown where git can't tell
    patch: str = ""  # what `git apply` makes of the commit the code that ran

    @property
    def summary(self) -> str:
        """Such as "commit 1a2b3c4d with changes"."""
        changes = {"true": " with changes", "false": ""}.get(self.dirty, ", changes unknown")
        return f"commit {self.commit[:8]}{changes}"

    @property
    def tags(self) -> dict[str, str]:
        """As a run shows them."""
        return {"git.commit": self.commit, "git.branch": self.branch, "git.dirty": self.dirty}


def code_of(workspace: Workspace) -> Code:
    """The commit, the branch and the uncommitted changes of the repository that owns the workspace."""
    # A temporary DVC experiment is a git work tree of its own; a trial is not.
    root = workspace.root if (workspace.root / ".git").exists() else workspace.home
    commit = (
        os.environ.get("DVC_EXP_BASELINE_REV") or (git(root, "rev-parse", "--verify", "HEAD") or "").strip()
    )
    if not commit:
        return Code()
    patch = _patch(root, commit)
    dirty = "unknown" if patch is None else str(bool(patch)).lower()
    branch = (git(root, "rev-parse", "--abbrev-ref", "HEAD") or "unknown").strip()
    return Code(commit, branch, dirty, patch or "")


def write_code(path: Path, code: Code) -> None:
    """Write down the code of now, for trainings of a copy that is made of it: `read_code` reads it."""
    write_text(path, json.dumps(asdict(code)) + "\n")


def read_code(path: Path) -> Code:
    """What `write_code` wrote."""
    return Code(**json.loads(path.read_text(encoding="utf-8")))


def _patch(root: Path, commit: str) -> str | None:
    """The changes since a commit as a patch that applies, new files included; None: git can't tell."""
    options = ("--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--full-index")
    changed = git(root, "diff", *options, commit, "--", ".", *_WRITTEN)
    listed = git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *_SOURCES)
    if changed is None or listed is None:
        return None
    for name in filter(None, listed.split("\0")):
        # Exit code 1 says that there is a difference.
        new = git(root, "diff", *options, "--no-index", "--", os.devnull, name, codes=(0, 1))
        changed += new or ""
    return changed if len(changed) <= _MAX_PATCH else None


def git(root: Path, *arguments: str, codes: tuple[int, ...] = (0,)) -> str | None:
    """What git printed of the repository at `root`, byte for byte; None if it failed."""
    # Another repository's, if a hook or a script has set them.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", root, *_PLAIN, *arguments],
            capture_output=True,
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Patches of text may hold any bytes.
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode in codes else None


@cache
def environment_tags() -> dict[str, str]:
    """The machine and the versions of the packages, as a run's tags have them."""
    tags = {
        "platform": platform.platform(),
        "processor": processor(),
        "package.python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            tags[f"package.{package}"] = version(package)
        except PackageNotFoundError:
            tags[f"package.{package}"] = "not installed"
    return tags


def processor() -> str:
    """The name of this machine's processor; one of another make may round otherwise."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
