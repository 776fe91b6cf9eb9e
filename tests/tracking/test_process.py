"""A real `python -m pipeline.stages train` that is asked to stop, and a process that is killed."""

import os
import shutil
import subprocess
import sys

import pytest
from harness import REPOSITORY, child, config, kept, one_run, runs, until

from pipeline.artifacts.workspace import Workspace
from pipeline.config.params import dump
from pipeline.stages.__main__ import run
from servers import PATIENCE


@pytest.fixture
def training(tmp_path, empty_store):
    """The workspace and the process of a training that would take hours, in its second epoch or later."""
    workspace = Workspace(tmp_path / "work")
    workspace.root.mkdir()
    shutil.copy(empty_store, workspace.root / "mlflow.db")
    shutil.copy(REPOSITORY / "dvc.yaml", workspace.root)
    workspace.params.write_text(dump(config(train={"epochs": 100_000})))
    for stage in ("fetch", "preprocess"):
        run(stage, workspace)
    command = [sys.executable, "-m", "pipeline.stages", "train"]
    process = subprocess.Popen(
        command, cwd=workspace.root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        until(lambda: any(run.data.metrics for run in runs(workspace)))
        yield workspace, process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_sigterm_ends_the_process_and_the_run_is_marked_as_killed(training):
    workspace, process = training
    process.terminate()
    assert process.wait(PATIENCE) == 143
    assert one_run(workspace).info.status == "KILLED"
    assert kept(workspace) == []
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_run_of_a_killed_process_is_ended_by_the_next_command(workspace):
    command = [sys.executable, REPOSITORY / "tests/tracking/harness.py", "hang", workspace.root]
    with subprocess.Popen(command) as process:
        until(lambda: process.poll() is not None or any(run.data.metrics for run in runs(workspace)))
        process.kill()
    assert one_run(workspace).info.status == "RUNNING"
    assert "(KILLED)" in child("sync", workspace).stdout
    found = one_run(workspace)
    assert found.info.status == "KILLED"
    assert found.data.tags["pipeline.error"] == "its process died"
    assert kept(workspace) == []
