"""`dvc repro` in the process of the pipeline says which signal ended a stage, and runs it in /bin/sh."""

import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repro")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("kill -KILL $$", "its process was ended by SIGKILL, as the system does when memory runs out."),
        ("bash -c 'kill -SEGV $$'; exit $?", "its process was ended by SIGSEGV."),
        ("exit 3", None),
    ],
)
def test_a_killed_stage_is_reported_as_killed(repository, command, said):
    (repository / "dvc.yaml").write_text(f"stages:\n  train:\n    cmd: {command!r}\n")

    program = "import sys; from pipeline.trials.repro import repro; sys.exit(repro())"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, check=False
    )

    assert ended.returncode
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert lines == ([f"error: failed to reproduce 'train': {said}"] if said else [])


REPRO = """
from pathlib import Path
from pipeline.artifacts.workspace import Workspace
from pipeline.cli import training

training.repository = lambda: Workspace(Path.cwd())
training._sync = lambda workspace: None
training.repro()
"""


@pytest.mark.parametrize("shell", ["/bin/false", "/no/such/shell"])
def test_stages_run_whatever_the_users_shell_is(repository, shell):
    made = repository / "made"
    made.unlink(missing_ok=True)
    (repository / "dvc.yaml").write_text("stages:\n  train:\n    cmd: NAME=made; touch $NAME\n")
    ended = subprocess.run(
        [sys.executable, "-c", REPRO], cwd=repository, env=os.environ | {"SHELL": shell}, check=False
    )
    assert ended.returncode == 0
    assert made.exists()
