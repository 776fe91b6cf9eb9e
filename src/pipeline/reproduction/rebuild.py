"""Rebuild a run: train and evaluate it again in a temporary clone with its code, configuration and data."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

from pipeline.artifacts.workspace import Workspace, remove, write_text
from pipeline.config.params import dump_values
from pipeline.console import EpochTrack, say, track_epochs
from pipeline.errors import PipelineError
from pipeline.processes.lock import locked
from pipeline.processes.system import variables_for_dvc
from pipeline.processes.temporary import temporary_folder
from pipeline.reproduction.recorded import Origin
from pipeline.tracking.lineage import fetching, git
from pipeline.trials.layout import share_cache

# Variables of the user's shell that tell git, DVC and Python about another repository.
_FOREIGN = ("GIT_", "DVC_", "PYTHON")
_JAX = "jax", "jaxlib"  # what the backend jax needs in addition to the packages of every environment
_EPOCH = re.compile(r"Epoch (?P<number>\d+) of (?P<total>\d+): (?P<note>.*)")  # printed by the stage train


@contextmanager
def rebuilt(origin: Origin, repository: Workspace, own_packages: bool = False) -> Iterator[Workspace]:
    """Rebuild the run in a folder that is removed after the `with` block, and yield its workspace.

    The data come from DVC's cache, by their digests, or from their sources; the training and the evaluation
    run again, and their results do not enter the cache.

    `own_packages` uses the packages that the run's commit locks, not the installed ones.

    Raises:
        PipelineError: If the code or the packages are not available, or a stage failed.
    """
    _refuse_without_backend(origin, own_packages)
    with temporary_folder() as folder:
        clone = _check_out(origin, repository, folder / "repository")
        config = dict(origin.config)
        # In MLflow, the rebuilt run is shown as an occasion of the original, not as another run.
        config["tracking"] = {**config["tracking"], "uri": None}
        write_text(clone.params, dump_values(config))
        share_cache(clone, "config.local", repository, autostage=False)
        python = Path(sys.executable)
        if own_packages:
            python = _environment_of(clone, repository, packages_of(origin, clone.root))
        _repro(clone, python, "fetch", "preprocess")
        _repro(clone, python, "--force", "--no-run-cache", "--no-commit", "train", "evaluate")
        yield clone


def _refuse_without_backend(origin: Origin, own_packages: bool) -> None:
    """Check at once whether JAX is available; the training would fail only after the clone is made."""
    train = origin.config["train"]
    if train.get("backend") != "jax":
        return
    if own_packages and train["device"] == "gpu":
        raise PipelineError(
            f"{origin.label} was trained on a GPU, and no lock file has the packages of CUDA: install JAX "
            "for a GPU as docs/gpu.md says, and leave out --environment."
        )
    if not own_packages and find_spec("jax") is None:
        raise PipelineError(
            f"{origin.label} was trained with JAX, which is not installed: `make setup EXTRAS=jax` installs "
            "it for processors, and docs/gpu.md says how to install it for a GPU."
        )


def packages_of(origin: Origin, root: Path) -> str:
    """Return the packages that a run needs, from the lock files of its commit, in pip's format.

    The code of the run is checked out in `root`.

    Raises:
        PipelineError: If there is no lock file, or the lock files lack the packages of the backend.
    """
    lock_file = root / "requirements.lock"
    if not lock_file.exists():
        raise PipelineError("The run's commit has no requirements.lock to make its environment from.")
    packages = lock_file.read_text(encoding="utf-8")
    if origin.config["train"].get("backend") != "jax":
        return packages
    extras = root / "requirements-dev.lock"
    text = extras.read_text(encoding="utf-8") if extras.exists() else ""
    # A package is a line and the indented lines below it, which have its digests.
    blocks = re.findall(rf"^(?:{'|'.join(_JAX)})==.*\n(?:[ \t].*\n?)*", text, re.MULTILINE)
    if len(blocks) < len(_JAX):
        raise PipelineError("The run was trained with JAX, which the lock files of its commit don't have.")
    return "\n".join([packages.rstrip("\n"), *blocks])


def _check_out(origin: Origin, repository: Workspace, root: Path) -> Workspace:
    """Clone the repository, and check out the code of the run."""
    code = origin.code
    if code.commit == "unknown":
        raise PipelineError(
            f"It is not recorded from which commit {origin.label} was trained, and {repository.root} is "
            "not a git repository with a commit: the code is not available."
        )
    top = Path(_git(repository.root, "rev-parse", "--show-toplevel").strip())
    if git(top, "cat-file", "-e", f"{code.commit}^{{commit}}") is None:
        raise PipelineError(
            f"{origin.label} was trained from the commit {code.commit[:12]}, which this clone does not "
            f"have: `{fetching(top)}` may bring it."
        )
    _git(top, "clone", "--quiet", "--shared", "--no-checkout", str(top), str(root))
    _git(root, "checkout", "--quiet", "--detach", code.commit)
    if code.patch:
        patch = root.with_name("uncommitted.diff")
        patch.write_bytes(code.patch.encode("utf-8", "surrogateescape"))
        _git(root, "apply", "--whitespace=nowarn", str(patch))
    return Workspace(root / repository.root.resolve().relative_to(top.resolve()))


def _git(folder: Path, *arguments: str) -> str:
    return _output(["git", "-C", str(folder), *arguments], f"git {arguments[0]} failed in {folder}")


def _output(command: list[str], failed: str) -> str:
    """Return what a command prints, or raise an error: `failed`, and the last line of its errors."""
    done = subprocess.run(command, capture_output=True, env=_environment(), text=True, errors="replace")
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise PipelineError(f"{failed}: {reason[0]}")
    return done.stdout


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}


def _repro(clone: Workspace, python: Path, *arguments: str) -> None:
    """Run `dvc repro` for single stages, without `compose`, which would use the values of this conf/."""
    command = [str(python), "-m", "dvc", "repro", "--quiet", "--single-item", *arguments]
    with subprocess.Popen(
        command,
        cwd=clone.root,
        env=_environment() | variables_for_dvc(python),
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout
        _show(process.stdout)
    if process.returncode:
        raise PipelineError("The run could not be rebuilt: the reason is above.")


def _show(lines: Iterable[str]) -> None:
    """Print the output of the stages, of whatever version: epochs are shown as a bar on a terminal."""
    with ExitStack() as stack:
        epochs: EpochTrack | None = None
        for line in lines:
            epoch = _EPOCH.match(line)
            if epoch and not epochs:
                epochs = stack.enter_context(track_epochs(int(epoch["total"]), 1))
            if epoch and epochs:
                epochs.end_epoch(int(epoch["number"]), epoch["note"])
            # The store of the temporary clone is removed before anybody can open it.
            elif not line.startswith("MLflow run "):
                stack.close()
                say(line.rstrip("\n"))


def _environment_of(clone: Workspace, repository: Workspace, packages: str) -> Path:
    """Return the Python of an environment with `packages`, made once for all runs with the same packages."""
    lock_file = clone.root.with_name("packages.lock")
    write_text(lock_file, packages)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    key = hashlib.sha256((version + packages).encode()).hexdigest()[:16]
    folder = repository.scratch / "environments" / key
    with locked(
        folder.with_suffix(".lock"), waiting="Waiting for another process that makes this environment."
    ):
        if not (folder / "complete").exists():
            remove(folder)
            say(f"Making an environment with the run's packages in {folder} (a few minutes, once) ...")
            failed = "The run's packages can't be installed"
            _output([sys.executable, "-m", "venv", str(folder)], failed)
            pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            _output([*pip, "--disable-pip-version-check", "--require-hashes", "-r", str(lock_file)], failed)
            (folder / "complete").touch()
    return folder / "bin" / "python"
