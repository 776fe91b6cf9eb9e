"""Where a training comes from: the commit, the uncommitted changes, the machine and the packages."""

import json
import os
import platform
import shlex
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.console import warn

PACKAGES = ("tensorflow", "keras", "onnxruntime", "numpy", "scikit-learn", "mlflow", "dvc", "hydra-core")
_MAX_PATCH = 10_000_000  # characters; a longer patch is not a change of code
# Files that DVC and compose write while the pipeline runs don't count as changes.
_GENERATED = (":!dvc.lock", ":!params.yaml")
# Where an untracked file may change a result.
_SOURCES = ("src", "conf", "dvc.yaml")
# The format of a patch must not depend on the user's settings.
_PATCH_FORMAT = ("-c", "core.quotePath=true", "-c", "diff.noprefix=false", "-c", "diff.mnemonicPrefix=false")


@dataclass(frozen=True)
class Code:
    """The code that a training ran with, as far as git knows."""

    commit: str = "unknown"
    branch: str = "unknown"
    dirty: str = "unknown"  # "true" or "false"; "unknown" if git can't tell
    patch: str = ""  # the uncommitted changes, for `git apply`

    @property
    def summary(self) -> str:
        """A short text such as "commit 1a2b3c4d with changes"."""
        changes = {"true": " with changes", "false": ""}.get(self.dirty, ", changes unknown")
        return f"commit {self.commit[:8]}{changes}"

    @property
    def tags(self) -> dict[str, str]:
        """The tags that a run gets."""
        return {"git.commit": self.commit, "git.branch": self.branch, "git.dirty": self.dirty}


def code_of(workspace: Workspace) -> Code:
    """Return the commit, the branch and the uncommitted changes of the repository of `workspace`."""
    # A temporary DVC experiment has its own git work tree; a trial does not.
    root = workspace.root if (workspace.root / ".git").exists() else workspace.home
    commit = (
        os.environ.get("DVC_EXP_BASELINE_REV") or (git(root, "rev-parse", "--verify", "HEAD") or "").strip()
    )
    if not commit:
        return Code()
    patch = _patch(root, commit)
    dirty = "unknown" if patch is None else str(bool(patch)).lower()
    branch = readable((git(root, "rev-parse", "--abbrev-ref", "HEAD") or "unknown").strip())
    return Code(commit, branch, dirty, patch or "")


def write_code(path: Path, code: Code) -> None:
    """Save `code` next to a copy of the sources, for `read_code` in trainings of that copy."""
    write_text(path, json.dumps(asdict(code)) + "\n")


def read_code(path: Path) -> Code:
    """Return the code that `write_code` saved."""
    return Code(**json.loads(path.read_text(encoding="utf-8")))


def _patch(root: Path, commit: str) -> str | None:
    """Return the changes since a commit, including new files, as a patch; None if git can't tell."""
    options = ("--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--full-index")
    changed = git(root, "diff", *options, commit, "--", ".", *_GENERATED)
    listed = git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *_SOURCES)
    if changed is None or listed is None:
        return None
    for name in filter(None, listed.split("\0")):
        # Exit code 1 means that there is a difference.
        new = git(root, "diff", *options, "--no-index", "--", os.devnull, name, codes=(0, 1))
        changed += new or ""
    return changed if len(changed) <= _MAX_PATCH else None


def git(root: Path, *arguments: str, codes: tuple[int, ...] = (0,)) -> str | None:
    """Return the output of git for the repository at `root`, byte for byte; None if git failed."""
    # A hook or a script may have set these variables for another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", root, *_PATCH_FORMAT, *arguments],
            capture_output=True,
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Git's sentence may be translated, but not the setting that it recommends.
    if done.returncode not in codes and b"safe.directory" in done.stderr:
        _warn_of_other_owner(root)
    # A patch may contain any bytes.
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode in codes else None


def readable(text: str) -> str:
    """Return what git printed as text that can be stored: bytes that are not UTF-8 become question marks."""
    return text.encode("utf-8", "replace").decode()


@cache
def _warn_of_other_owner(root: Path) -> None:
    warn(
        f"git does not read {root}, because the folder belongs to another user, so the commit is unknown. "
        f"To allow it: git config --global --add safe.directory {shlex.quote(str(root))}"
    )


@cache
def environment_tags() -> dict[str, str]:
    """Return the machine and the versions of the packages, as tags of a run."""
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


def fetching(root: Path) -> str:
    """Return the git command that may bring a commit which the repository at `root` does not have."""
    shallow = (git(root, "rev-parse", "--is-shallow-repository") or "").strip() == "true"
    return "git fetch --unshallow" if shallow else "git fetch --all"


def processor() -> str:
    """Return the name of this machine's processor; other models may round differently."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
