"""Interrupted commands leave a consistent state, and don't affect others that run at the same time."""

import os
import random
import re
import signal
import time
from contextlib import suppress

import pytest
from clones import executed, smoke_clone_of, until

UNENDING = ("epochs: 5", "epochs: 100000")


def in_training(clone) -> list[int]:
    return [number for number in clone.processes() if "pipeline.stages\0train" in command_of(number)]


def command_of(number: int) -> str:
    try:
        with open(f"/proc/{number}/cmdline") as file:
            return file.read()
    except OSError:
        return ""


def test_two_repros_at_once_do_not_disturb_each_other(reproduced, smoke, start):
    first = start(smoke, "dvc", "repro", "--no-run-cache", "--force", "--single-item", "train")
    first.wait_for("Training mlp")
    [stage] = in_training(smoke)
    os.kill(stage, signal.SIGSTOP)
    second = smoke.repro(code=None)
    assert str(first.process.pid) in second
    os.kill(stage, signal.SIGCONT)
    assert first.end() == 0, first.output
    assert smoke.digests()["models/model.keras"] == reproduced.digests()["models/model.keras"]


@pytest.mark.slow
def test_the_stage_ends_with_dvc_and_the_rerun_gives_the_same_weights(smoke, start):
    smoke.edit("conf/experiment/smoke.yaml", "epochs: 5", "epochs: 200")
    smoke.repro()
    expected = smoke.digests()
    command = ("dvc", "repro", "--no-run-cache", "--force", "--single-item", "train")
    killed = start(smoke, *command)
    killed.wait_for("Training mlp")
    # Suspended, it can't end before its parent is killed, however slow this machine is.
    [stage] = in_training(smoke)
    os.kill(stage, signal.SIGSTOP)
    os.kill(killed.process.pid, signal.SIGKILL)
    killed.end()
    os.kill(stage, signal.SIGCONT)
    until(lambda: not smoke.processes())
    assert not smoke.workspace.run.exists()

    assert executed(smoke.run(*command)) == ["train"]
    smoke.repro()
    assert smoke.digests() == expected
    assert {run.info.status for run in smoke.mlflow_runs()} == {"FINISHED"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_terminated_trial_ends_its_processes(smoke, start, number):
    smoke.edit("conf/experiment/smoke.yaml", *UNENDING)
    before = smoke.digests()
    trial = start(smoke, "python", "-m", "pipeline")
    trial.wait_for("Epoch 2 of")
    if number == signal.SIGINT:  # as sent by a terminal
        os.killpg(trial.process.pid, number)
    else:
        os.kill(trial.process.pid, number)
    assert trial.end() == 128 + number, trial.output
    until(lambda: not smoke.processes())
    assert "Traceback" not in trial.output
    assert smoke.mlflow_runs()[-1].info.status == "KILLED"
    assert smoke.digests() == before
    assert list((smoke.root / ".pipeline" / "trials").iterdir()) == []


@pytest.mark.slow
def test_a_trial_that_a_script_started_in_the_background_ends_on_sigterm(smoke, start):
    smoke.edit("conf/experiment/smoke.yaml", *UNENDING)
    # A non-interactive shell lets commands that it starts with `&` ignore SIGINT.
    script = start(smoke, "sh", "-c", "python -m pipeline & echo started $!; wait $!; echo ended with $?")
    script.wait_for("Epoch 2 of")
    os.kill(int(re.search(r"started (\d+)", script.output)[1]), signal.SIGTERM)
    assert script.end() == 0
    assert "ended with 143" in script.output
    until(lambda: not smoke.processes())
    assert smoke.mlflow_runs()[-1].info.status == "KILLED"


def test_ctrl_c_ends_repro_and_its_run(smoke, start):
    smoke.edit("conf/experiment/smoke.yaml", *UNENDING)
    repro = start(smoke, "dvc", "repro")
    repro.wait_for("Epoch 2 of")
    os.killpg(repro.process.pid, signal.SIGINT)
    assert repro.end() != 0
    until(lambda: not smoke.processes())
    assert smoke.mlflow_runs()[-1].info.status == "KILLED"
    assert not smoke.workspace.model.exists()


@pytest.mark.slow
def test_a_training_that_is_killed_repeatedly_ends_with_the_same_weights(template, tmp_path, start):
    """Rows 1 to 3 of the faults: everything random is enabled, and the kills come at any time."""
    long = "epochs: 600\n  shuffle: every_epoch\n  checkpoint_seconds: 0.0\n  augment:\n    shift: 1.0"
    clones = []
    for name in ("unharmed", "killed"):
        clone = smoke_clone_of(template, tmp_path / name)
        clone.edit("conf/experiment/smoke.yaml", "epochs: 5", long)
        clone.edit("conf/model/mlp_small.yaml", "hidden_units: [32]", "dropout: 0.2\nhidden_units: [32]")
        clones.append(clone)
    unharmed, killed = clones
    unharmed.repro()

    chance = random.Random(0)
    reached = 0
    for _ in range(5):
        repro = start(killed, "dvc", "repro")
        repro.wait_for(f"Epoch {reached + chance.randint(20, 80)} of")
        [stage] = in_training(killed)
        os.kill(stage, signal.SIGKILL)
        assert repro.end() != 0
        until(lambda: not killed.processes())
        [began_after] = re.findall(r"Going on after epoch (\d+)", repro.output) or ["0"]
        # At most the current epoch is lost.
        assert int(began_after) >= reached - 1
        reached = int(re.findall(r"Epoch (\d+) of", repro.output)[-1])

    [checkpoint] = (killed.root / ".pipeline" / "checkpoints").glob("*.npz")
    last = killed.repro()
    assert "Going on after epoch" in last
    assert not checkpoint.exists()
    assert killed.digests() == unharmed.digests()
    [run] = killed.mlflow_runs()
    assert run.info.status == "FINISHED"
    assert [metric.step for metric in killed.curve(run, "train_loss")] == list(range(1, 601))


@pytest.mark.slow
def test_a_truncated_checkpoint_is_ignored(smoke, reproduced, start):
    smoke.edit("conf/experiment/smoke.yaml", "epochs: 5", "epochs: 200\n  checkpoint_seconds: 0.0")
    repro = start(smoke, "dvc", "repro")
    repro.wait_for("Epoch 2 of")
    os.killpg(repro.process.pid, signal.SIGKILL)
    repro.end()
    until(lambda: not smoke.processes())
    [checkpoint] = (smoke.root / ".pipeline" / "checkpoints").glob("*.npz")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    output = smoke.repro()
    assert "is damaged" in output
    assert "Epoch 200 of 200" in output


@pytest.mark.slow
def test_a_killed_trial_of_dvcs_queue_leaves_nothing(smoke, start, tmp_path):
    smoke.edit("conf/experiment/smoke.yaml", *UNENDING)
    before = smoke.digests()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    smoke.environment |= {"TMPDIR": str(temporary)}
    smoke.run("dvc", "exp", "run", "--queue", "-S", "seed=5")
    assert start(smoke, "dvc", "queue", "start").end() == 0
    until(lambda: len(smoke.mlflow_runs()) == 2)
    smoke.run("dvc", "queue", "stop", "--kill")
    until(lambda: not smoke.processes())
    assert [run.info.status for run in smoke.mlflow_runs()] == ["FINISHED", "KILLED"]
    assert smoke.digests() == before
    assert list(temporary.iterdir()) == list((smoke.root / ".pipeline" / "runs").iterdir()) == []


def written(folder) -> bool:
    """Return whether there is a file in a folder of `folder`; files may come and go meanwhile.

    Python itself tries out the folder for temporary files with a file of its own there, for a moment.
    """
    return any(names for where, _, names in os.walk(folder) if where != str(folder))


@pytest.mark.parametrize("command", [("pipeline", "sync"), ("python", "-m", "pipeline")])
def test_temporary_files_of_a_sender_that_was_killed_are_removed_by_the_next_command(
    smoke, start, tmp_path, command
):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    smoke.environment |= {"TMPDIR": str(temporary)}
    # The run is rebuilt from the model in the workspace or in DVC's cache.
    (smoke.root / "mlflow.db").unlink()
    sending = start(smoke, *command)
    # Logged files exist there for milliseconds.
    while sending.process.poll() is None and not written(temporary):
        time.sleep(0.001)
    for number in smoke.processes():
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    until(lambda: not smoke.processes())
    smoke.run("pipeline", "history")
    assert list(temporary.rglob("*")) == []
