"""A run made again: its code, configuration and data in a throwaway clone, trained and evaluated anew."""

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
from pipeline.processes.temporary import temporary_folder
from pipeline.reproduction.recorded import Origin
from pipeline.trials.layout import share_cache

# What git and DVC are told by the shell that this runs in is about another repository.
_FOREIGN = ("GIT_", "DVC_", "PYTHON")
_JAX = "jax", "jaxlib"  # What backend jax needs beside the packages that every environment has.
_EPOCH = re.compile(r"Epoch (?P<number>\d+) of (?P<total>\d+): (?P<note>.*)")  # a line of the stage train


@contextmanager
def rebuilt(origin: Origin, repository: Workspace, own_packages: bool = False) -> Iterator[Workspace]:
    """Make the run again in a folder that is gone after the `with`.

    Data come from DVC's cache, by their digests, or from their sources; the training and the evaluation are
    done anew, and nothing of them enters the cache.

    Args:
        origin: of the run.
        repository: has its commit and DVC's cache; it is not written to.
        own_packages: whether to use those of the lock file of the run's commit, not today's.

    Raises:
        PipelineError: the code or the packages can't be had, or a stage failed.
    """
    _refuse_without_backend(origin, own_packages)
    with temporary_folder() as folder:
        clone = _check_out(origin, repository, folder / "repository")
        config = dict(origin.config)
        # What is rebuilt is shown in MLflow as one occasion of the run, not as a run.
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
    """Say at once what the training would only say after the clone and the environment are made."""
    train = origin.config["train"]
    if train.get("backend") != "jax":
        return
    if own_packages and train["device"] == "gpu":
        raise PipelineError(
            f"{origin.label} was trained on a GPU, and no lock file has the packages of CUDA: install JAX "
            "for it as docs/gpu.md says, and leave out --environment."
        )
    if not own_packages and find_spec("jax") is None:
        raise PipelineError(
            f"{origin.label} was trained with JAX, which is not installed: `make setup EXTRAS=jax` installs "
            "it for processors, and docs/gpu.md says how to install it for a GPU."
        )


def packages_of(origin: Origin, root: Path) -> str:
    """What the lock files of a run's commit have for it, as pip reads it.

    Args:
        origin: of the run.
        root: the repository as the run's code was.

    Raises:
        PipelineError: there is no lock file, or none that has the backend's packages.
    """
    lock_file = root / "requirements.lock"
    if not lock_file.exists():
        raise PipelineError("The run's commit has no requirements.lock to make its environment from.")
    packages = lock_file.read_text(encoding="utf-8")
    if origin.config["train"].get("backend") != "jax":
        return packages
    extras = root / "requirements-dev.lock"
    text = extras.read_text(encoding="utf-8") if extras.exists() else ""
    # A package is its line and those below that are indented: its digests.
    found = re.findall(rf"^(?:{'|'.join(_JAX)})==.*\n(?:[ \t].*\n?)*", text, re.MULTILINE)
    if len(found) < len(_JAX):
        raise PipelineError("The run was trained with JAX, which the lock files of its commit don't have.")
    return "\n".join([packages.rstrip("\n"), *found])


def _check_out(origin: Origin, repository: Workspace, root: Path) -> Workspace:
    """A clone of the repository as the run's code was."""
    code = origin.code
    if code.commit == "unknown":
        raise PipelineError(
            f"It is not recorded from which commit {origin.label} was trained, and {repository.root} is no "
            "git repository with a commit: the code can't be had."
        )
    top = Path(_git(repository.root, "rev-parse", "--show-toplevel").strip())
    try:
        _git(top, "cat-file", "-e", f"{code.commit}^{{commit}}")
    except PipelineError:
        raise PipelineError(
            f"{origin.label} was trained from the commit {code.commit[:12]}, which this clone does not "
            "have: `git fetch --all` may bring it."
        ) from None
    _git(top, "clone", "--quiet", "--shared", "--no-checkout", str(top), str(root))
    _git(root, "-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach", code.commit)
    if code.patch:
        patch = root.with_name("uncommitted.diff")
        patch.write_bytes(code.patch.encode("utf-8", "surrogateescape"))
        _git(root, "apply", "--whitespace=nowarn", str(patch))
    return Workspace(root / repository.root.resolve().relative_to(top.resolve()))


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", folder, *arguments],
        capture_output=True,
        env=_environment(),
        text=True,
        errors="replace",
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise PipelineError(f"git {arguments[0]} failed in {folder}: {reason[0]}")
    return done.stdout


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}


def _repro(clone: Workspace, python: Path, *arguments: str) -> None:
    """Run `dvc repro` for single stages: compose would have the values of today's conf/."""
    path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [str(python), "-m", "dvc", "repro", "--quiet", "--single-item", *arguments]
    with subprocess.Popen(
        command,
        cwd=clone.root,
        env=_environment() | {"PATH": path},
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout
        _show(process.stdout)
    if process.returncode:
        raise PipelineError("The run could not be rebuilt: the reason is above.")


def _show(lines: Iterable[str]) -> None:
    """Print what the stages say, whichever version they are of: epochs as a bar at a terminal."""
    with ExitStack() as stack:
        epochs: EpochTrack | None = None
        for line in lines:
            found = _EPOCH.match(line)
            if found and not epochs:
                epochs = stack.enter_context(track_epochs(int(found["total"]), 1))
            if found and epochs:
                epochs.end_epoch(int(found["number"]), found["note"])
            # The store of the temporary clone is gone before anybody can look.
            elif not line.startswith("MLflow run "):
                stack.close()
                say(line.rstrip("\n"))


def _environment_of(clone: Workspace, repository: Workspace, packages: str) -> Path:
    """The Python of an environment with such packages, made once for all runs that have the same.

    Raises:
        PipelineError: they can't be installed.
    """
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
            _run([sys.executable, "-m", "venv", str(folder)])
            pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            _run([*pip, "--disable-pip-version-check", "--require-hashes", "-r", str(lock_file)])
            (folder / "complete").touch()
    return folder / "bin" / "python"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, env=_environment(), stderr=subprocess.PIPE, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise PipelineError(f"The run's packages can't be installed: {reason[0]}")
