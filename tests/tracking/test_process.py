"""A real `python -m pipeline.stages train` that is asked to stop, and a process that is killed."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from harness import REPOSITORY, child, config, kept, one_run, runs, until

from pipeline.artifacts.workspace import Workspace
from pipeline.config.params import dump
from pipeline.stages.__main__ import run
from servers import PATIENCE


@pytest.fixture
def start(tmp_path, empty_store):
    """A function that starts the stage train, with values of its configuration, in a process of its own."""
    processes = []

    def start(**changes):
        workspace = Workspace(tmp_path / "work")
        workspace.root.mkdir()
        shutil.copy(empty_store, workspace.root / "mlflow.db")
        shutil.copy(REPOSITORY / "dvc.yaml", workspace.root)
        workspace.params.write_text(dump(config(**changes)))
        for stage in ("fetch", "preprocess"):
            run(stage, workspace)
        command = [sys.executable, "-m", "pipeline.stages", "train"]
        process = subprocess.Popen(
            command,
            cwd=workspace.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return workspace, process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture
def training(start):
    """The workspace and the process of a training that would take hours, in its second epoch or later."""
    workspace, process = start(train={"epochs": 100_000})
    until(lambda: any(run.data.metrics for run in runs(workspace)))
    return workspace, process


def senders(workspace):
    """Return the ids of the processes that send the runs of `workspace` to MLflow."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"sending_process" in (entry / "cmdline").read_bytes():
                found += [int(entry.name)] if (entry / "cwd").readlink() == workspace.root else []
    return found


def test_sigterm_ends_the_process_and_the_run_is_marked_as_killed(training):
    workspace, process = training
    process.terminate()
    assert process.wait(PATIENCE) == 143
    assert one_run(workspace).info.status == "KILLED"
    assert kept(workspace) == []
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert senders(workspace) == []


def test_a_training_outlives_the_process_that_sends_it(training):
    workspace, process = training
    [sender] = senders(workspace)
    os.kill(sender, signal.SIGKILL)
    process.terminate()
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert errors.count("The process that sends to MLflow ended. The run is kept in .pipeline/runs") == 1
    assert one_run(workspace).info.status == "RUNNING"
    assert "(KILLED)" in child("sync", workspace).stdout
    assert one_run(workspace).info.status == "KILLED"
    assert kept(workspace) == []


def test_a_training_does_not_wait_for_the_process_that_sends_to_a_slow_server(start, black_hole):
    workspace, process = start(tracking={"uri": black_hole, "timeout": 1.0})
    until(lambda: senders(workspace) or process.poll() is not None)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert errors.count("could not be brought up to date") == 1
    assert senders(workspace) == []
    assert len(kept(workspace)) == 1


def test_a_stage_does_not_import_mlflow_itself(start):
    code = "import sys; from pipeline.stages.__main__ import main; main(); print('mlflow' in sys.modules)"
    workspace, process = start()
    process.communicate(timeout=PATIENCE)
    for stage in ("train", "evaluate"):
        done = subprocess.run(
            [sys.executable, "-c", code, stage],
            cwd=workspace.root,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == "False"
        assert "(FINISHED)" in done.stdout


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
