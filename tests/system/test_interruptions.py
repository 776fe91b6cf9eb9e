"""What is interrupted ends whole, and what runs beside it is unharmed."""

import os
import signal

import pytest
from clones import executed, until

UNENDING = ("epochs: 5", "epochs: 100000")


def in_training(clone) -> list[int]:
    return [number for number in clone.processes() if "pipeline.stages\0train" in command_of(number)]


def command_of(number: int) -> str:
    try:
        with open(f"/proc/{number}/cmdline") as file:
            return file.read()
    except OSError:
        return ""


def test_two_at_once_do_not_harm_each_other(reproduced, smoke, start):
    first = start(smoke, "dvc", "repro", "--no-run-cache", "--force", "--single-item", "train")
    first.wait_for("Training mlp")
    [stage] = in_training(smoke)
    os.kill(stage, signal.SIGSTOP)
    second = smoke.repro(code=None)
    assert str(first.process.pid) in second
    os.kill(stage, signal.SIGCONT)
    assert first.end() == 0, first.output
    assert smoke.digests()["models/model.keras"] == reproduced.digests()["models/model.keras"]


def test_the_stage_dies_with_dvc_and_the_rerun_gives_the_same_weights(reproduced, smoke, start):
    command = ("dvc", "repro", "--no-run-cache", "--force", "--single-item", "train")
    killed = start(smoke, *command)
    killed.wait_for("Training mlp")
    assert in_training(smoke)
    os.kill(killed.process.pid, signal.SIGKILL)
    killed.end()
    until(lambda: not smoke.processes())
    assert not smoke.workspace.run.exists()

    assert executed(smoke.run(*command)) == ["train"]
    smoke.repro()
    results, expected = smoke.digests(), reproduced.digests()
    assert results.pop("models/run.json") != expected.pop("models/run.json")
    assert results == expected
    # The first is the clone's, the second the killed one's, which the third found dead.
    assert [run.info.status for run in smoke.mlflow_runs()] == ["FINISHED", "KILLED", "FINISHED"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_trial_that_is_told_to_stop_takes_its_processes_along(smoke, start, number):
    smoke.edit("conf/experiment/smoke.yaml", *UNENDING)
    before = smoke.digests()
    trial = start(smoke, "python", "-m", "pipeline")
    trial.wait_for("Epoch 2 of")
    if number == signal.SIGINT:  # as a terminal sends it
        os.killpg(trial.process.pid, number)
    else:
        os.kill(trial.process.pid, number)
    assert trial.end() == 128 + number, trial.output
    until(lambda: not smoke.processes())
    assert "Traceback" not in trial.output
    assert smoke.mlflow_runs()[-1].info.status == "KILLED"
    assert smoke.digests() == before
    assert [path.suffix for path in (smoke.root / ".pipeline" / "trials").iterdir()] == [".lock"]


def test_ctrl_c_ends_repro_and_its_run(smoke, start):
    smoke.edit("conf/experiment/smoke.yaml", *UNENDING)
    repro = start(smoke, "dvc", "repro")
    repro.wait_for("Epoch 2 of")
    os.killpg(repro.process.pid, signal.SIGINT)
    assert repro.end() != 0
    until(lambda: not smoke.processes())
    assert smoke.mlflow_runs()[-1].info.status == "KILLED"
    assert not smoke.workspace.model.exists()
