"""Fixtures for clones of the repository on a machine without any settings."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from clones import Clone, Running, clone_of, smoke_clone_of

REPOSITORY = Path(__file__).parents[2]
# Variables that may be set where the tests run, but not on a fresh machine.
FOREIGN = ("DVC_", "HYDRA_", "MLFLOW_", "KERAS_", "GIT_", "PYTHON", "XDG_", "MPL", "TF_CPP", "COMP_")


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """The environment of a machine without any settings."""
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text("[user]\nname = Test\nemail = test@example.org\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return kept | {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_NOSYSTEM": "1",
        "DVC_SITE_CACHE_DIR": str(home / "dvc-site"),
        "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc-global"),
        "DVC_SYSTEM_CONFIG_DIR": str(home / "dvc-system"),
        # How to reach the npm registry.
        "NPM_CONFIG_USERCONFIG": os.environ.get("NPM_CONFIG_USERCONFIG", str(Path.home() / ".npmrc")),
    }


@pytest.fixture(scope="session")
def template(tmp_path_factory, environment):
    """A git repository with the current working tree, without ignored files."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    root = tmp_path_factory.mktemp("template")
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, root / name)
    clone = Clone(root, environment)
    clone.git("init", "--quiet", "--initial-branch=main")
    clone.git("add", "--all")
    clone.git("commit", "--quiet", "--message=The working tree")
    return clone


@pytest.fixture
def fresh(template, tmp_path):
    """A fresh clone: no data, no cache, no runs."""
    return clone_of(template, tmp_path / "fresh")


@pytest.fixture(scope="session")
def reproduced(template, tmp_path_factory):
    """A smoke clone in which `dvc repro` ran and its lock was committed. Tests must not change it."""
    clone = smoke_clone_of(template, tmp_path_factory.mktemp("reproduced") / "clone")
    clone.repro()
    clone.git("commit", "--quiet", "--all", "--message=Reproduced")
    return clone


@pytest.fixture
def smoke(reproduced, tmp_path):
    """A copy of `reproduced` with its cache and runs, which tests may change; its processes end with it."""
    clone = Clone(tmp_path / "smoke", reproduced.environment)
    shutil.copytree(reproduced.root, clone.root, symlinks=True)
    yield clone
    for number in clone.processes():
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


@pytest.fixture
def start(request):
    """Start commands in a clone that end with the test, however that ends."""

    def begin(clone: Clone, *command: str) -> Running:
        running = Running(clone, *command)
        request.addfinalizer(running.kill_all)
        return running

    return begin
