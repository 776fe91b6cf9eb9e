"""Clones of the repository on a machine on which nobody set anything."""

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
# What the person or the machine that runs the tests may have set, and a fresh machine has not.
FOREIGN = ("DVC_", "HYDRA_", "MLFLOW_", "KERAS_", "GIT_", "PYTHON", "XDG_", "MPL", "TF_CPP", "COMP_")


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """The environment of a machine on which nobody set anything."""
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
        # Says how the npm registry is reached.
        "NPM_CONFIG_USERCONFIG": os.environ.get("NPM_CONFIG_USERCONFIG", str(Path.home() / ".npmrc")),
    }


@pytest.fixture(scope="session")
def template(tmp_path_factory, environment):
    """A git repository that holds the working tree as it is, and no more than git would see."""
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
    """A smoke clone in which `dvc repro` ran and its lock was committed. Not to be changed."""
    clone = smoke_clone_of(template, tmp_path_factory.mktemp("reproduced") / "clone")
    clone.repro()
    clone.git("commit", "--quiet", "--all", "--message=Reproduced")
    return clone


@pytest.fixture
def smoke(reproduced, tmp_path):
    """A copy of `reproduced` with its cache and its runs, to do anything with; its processes end with it."""
    clone = Clone(tmp_path / "smoke", reproduced.environment)
    shutil.copytree(reproduced.root, clone.root, symlinks=True)
    yield clone
    for number in clone.processes():
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


@pytest.fixture
def start(request):
    """Start a command in a clone; it is ended with the test, however that ends."""

    def begin(clone: Clone, *command: str) -> Running:
        running = Running(clone, *command)
        request.addfinalizer(running.kill_all)
        return running

    return begin
