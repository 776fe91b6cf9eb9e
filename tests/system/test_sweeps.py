"""Sweeps from the command line repeat and lose no training, and a failure affects only its own trial."""

import json
import os
import random
import re
import signal
import socket
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from clones import executed, smoke_clone_of, until

FOUR = ("train.learning_rate=0.01,0.003", "seed=0,1")


def sweep_of(clone, *overrides):
    """Return the command of a sweep that runs two trials at a time, whatever the number of cores."""
    return ("python", "-m", "pipeline", "-m", *overrides, "hydra.launcher.n_jobs=2")


def stages_run(clone) -> Counter:
    """Return how often each stage was executed in trials, from the output of DVC or of the stage."""
    logs = (clone.root / ".pipeline/sweeps").glob("*/trials/*.log")
    printed = "\n".join(path.read_text() for path in logs)
    said = {"fetch": "Fetched", "preprocess": "Processed", "train": "Training", "evaluate": "Test accuracy"}
    return Counter({name: len(re.findall(f"^{text} ", printed, re.M)) for name, text in said.items()})


def report_of(clone) -> dict:
    [path] = (clone.root / ".pipeline/sweeps").glob("*/report.json")
    return json.loads(path.read_text())


def states(clone) -> list[str]:
    return [trial["state"] for trial in report_of(clone)["trials"]]


def processes_of(clone, name: str) -> list[int]:
    return [number for number in clone.processes() if name_of(number) == name]


def name_of(number: int) -> str:
    try:
        return Path(f"/proc/{number}/comm").read_text().strip()
    except OSError:
        return ""


def test_what_was_trained_before_is_not_trained_again_and_the_best_is_restored(smoke):
    # The clone was reproduced with 0.001 and the seed 0.
    first = smoke.pipeline("-m", "train.learning_rate=0.001,0.01", "seed=0,1")
    assert re.search(
        r"^4 trials: 1 known, 3 to run, [1-3] at a time \(hydra/launcher=joblib\)\.$", first, re.M
    )
    assert stages_run(smoke) == {"fetch": 0, "preprocess": 0, "train": 3, "evaluate": 3}
    assert states(smoke) == ["known", "done", "done", "done"]
    # Settings are ranked, not seeds.
    [best] = [line for line in first.splitlines() if line.startswith("  1. ")]
    assert "learning_rate=0.01: val_accuracy" in best
    assert "(2 seeds)" in best
    assert smoke.changes() == ""
    assert not [path for path in (smoke.root / ".pipeline/trials").iterdir() if path.suffix != ".lock"]

    runs = smoke.mlflow_runs()
    [parent] = [run for run in runs if "pipeline.sweep" in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 3
    # The fourth was trained before, so it stays at the top level, and names the sweep.
    [known] = [run for run in runs if run.info.run_name.startswith("smoke-")]
    assert "mlflow.parentRunId" not in known.data.tags
    assert f"pipeline.sweep.{parent.data.tags['pipeline.sweep']}" in known.data.tags
    assert parent.data.metrics["trials"] == 4
    assert len(runs) == 5
    assert {run.info.status for run in runs} == {"FINISHED"}

    again = smoke.pipeline("-m", "train.learning_rate=0.001,0.01", "seed=0,1")
    assert "4 trials: 4 known, 0 to run." in again
    assert best in again.splitlines()
    assert stages_run(smoke)["train"] == 3
    assert len(smoke.mlflow_runs()) == 5

    smoke.edit("conf/train/default.yaml", "learning_rate: 0.001", "learning_rate: 0.01")
    assert executed(smoke.repro()) == ["compose"]


@pytest.mark.slow
def test_parallel_trials_share_their_common_stages_with_an_empty_cache(template, tmp_path):
    clone = smoke_clone_of(template, tmp_path / "cold")
    clone.pipeline("-m", "seed=0,1", "evaluate.calibration_bins=10,15,20", "hydra.launcher.n_jobs=6")
    assert states(clone) == ["done"] * 6
    assert stages_run(clone) == {"fetch": 1, "preprocess": 1, "train": 2, "evaluate": 6}


def test_a_failed_trial_does_not_stop_the_others_and_sets_the_exit_code(smoke):
    one_at_a_time = "hydra.launcher.n_jobs=1"  # so that the second begins after the first failed
    output = smoke.pipeline("-m", "preprocess.validation_fraction=0.999,0.2", one_at_a_time, code=1)
    assert "Traceback" not in output
    assert states(smoke) == ["failed", "done"]
    told = [line for line in output.splitlines() if line.startswith("error: ")]
    assert told == [
        "error: validation_fraction=0.999: digits has no training image of the class "
        "'1' (once the validation images are set apart): add some, take it out of data.classes, or set "
        "preprocess.validation_split to stratified or hash."
    ]
    [finished] = [run for run in smoke.mlflow_runs()[1:] if "pipeline.id" in run.data.tags]
    assert finished.data.params["preprocess.validation_fraction"] == "0.2"
    assert "test_accuracy" in finished.data.metrics

    overrides = ("preprocess.validation_fraction=0.999,0.3", "sweep.on_failure=stop")
    stopped = smoke.pipeline("-m", *overrides, "hydra/launcher=basic", code=1)
    assert "1 of the trials did not finish." in stopped


@pytest.mark.slow
def test_the_stages_before_the_training_do_not_wait_for_a_worker(smoke, tmp_path):
    with closing(socket.socket(socket.AF_UNIX)) as nobody:
        nobody.bind(str(tmp_path / "nobody"))
    script = (
        "from pipeline.processes.context import TrialContext\n"
        "from pathlib import Path\n"
        "from pipeline.config.compose import compose\n"
        "from pipeline.artifacts.workspace import here\n"
        "from pipeline.trials.trial import run_trial\n"
        f"context = TrialContext(worker={str(tmp_path / 'nobody')!r})\n"
        "config = compose(Path('conf'), ['preprocess.validation_fraction=0.3'])\n"
        "with run_trial(config, here(), context=context): pass"
    )
    said = smoke.run("python", "-c", script, code=1)
    assert "Processed digits: " in said
    assert "error: the worker that ran the stage train died" in said


@pytest.mark.slow
def test_a_killed_process_fails_at_most_its_own_trial(smoke, start):
    smoke.edit("conf/experiment/smoke.yaml", "epochs: 5", "epochs: 300")
    sweep = start(smoke, *sweep_of(smoke, "seed=1,2,3"))
    until(lambda: stages_run(smoke)["train"] >= 1)
    os.kill(processes_of(smoke, "worker")[0], signal.SIGKILL)
    assert sweep.end() == 1, sweep.output
    assert sorted(states(smoke)) == ["done", "done", "failed"]
    assert "the worker that ran the stage train died" in sweep.output
    until(lambda: not smoke.processes())

    again = smoke.run(*sweep_of(smoke, "seed=1,2,3"))
    assert "3 trials: 2 known, 1 to run" in again


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_and_the_same_command_continues_with_its_first_code(smoke, start):
    smoke.edit("conf/experiment/smoke.yaml", "epochs: 5", "epochs: 200")
    sweep = start(smoke, *sweep_of(smoke, *FOUR))
    until(lambda: "1 of 4" in sweep.output or sweep.process.poll() is not None)
    os.killpg(sweep.process.pid, signal.SIGINT)
    assert sweep.end() == 130, sweep.output
    assert "Traceback" not in sweep.output
    assert "run the same command again to continue" in sweep.output
    until(lambda: not smoke.processes())
    done = states(smoke).count("done")
    assert done >= 1
    assert all(run.info.status != "RUNNING" for run in smoke.mlflow_runs())

    goes_on = start(smoke, *sweep_of(smoke, *FOUR))
    until(lambda: " to run" in goes_on.output)
    # A trial that was interrupted after its last stage is reused, too.
    assert done <= int(re.findall(r"(\d) known", goes_on.output)[0]) < 4
    refused = smoke.run(*sweep_of(smoke, *FOUR), code=1)
    assert "The same sweep is running" in refused
    # The code is broken from here on, but the sweep uses the old code.
    loop = smoke.root / "src/pipeline/training/loop.py"
    loop.write_text("this is no Python\n")
    (smoke.root / "conf/train/default.yaml").write_text(
        (smoke.root / "conf/train/default.yaml").read_text().replace("beta_2: 0.999", "beta_2: 0.99")
    )
    assert goes_on.end() == 0, goes_on.output
    smoke.git("checkout", "--quiet", "src", "conf/train")
    assert "4 trials: 4 known" in smoke.run(*sweep_of(smoke, *FOUR))


@pytest.mark.slow
def test_a_driver_killed_repeatedly_loses_nothing_and_repeats_nothing(smoke, start):
    """As in Ray's restore tests: kill at random times, run the same command again, count the trainings."""
    smoke.edit("conf/experiment/smoke.yaml", "epochs: 5", "epochs: 100")
    command = sweep_of(smoke, *FOUR)
    chance = random.Random(0)
    kills = 0
    for _ in range(3):
        sweep = start(smoke, *command)
        wanted = stages_run(smoke)["train"] + chance.randint(1, 2)
        until(
            lambda count=wanted, process=sweep.process: (
                stages_run(smoke)["train"] >= count or process.poll() is not None
            )
        )
        if sweep.process.poll() is None:
            kills += 1
            sweep.process.kill()
        sweep.end()
        until(lambda: not smoke.processes())
    smoke.run(*command)
    assert kills >= 2
    assert states(smoke).count("done") + states(smoke).count("known") == 4
    # Each once, and the trials that ran at a kill (two at a time) at most once more.
    assert 4 <= stages_run(smoke)["train"] <= 4 + 2 * kills
    runs = [run for run in smoke.mlflow_runs() if "pipeline.id" in run.data.tags]
    assert all(run.info.status != "RUNNING" for run in runs)
    finished = [run for run in runs if run.info.status == "FINISHED"]
    assert len(finished) == 5  # including the clone's own


@pytest.mark.slow
def test_repro_works_during_a_sweep(smoke, start):
    sweep = start(smoke, *sweep_of(smoke, *FOUR))
    until(lambda: processes_of(smoke, "trial"))
    smoke.edit("conf/train/default.yaml", "learning_rate: 0.001", "learning_rate: 0.02")
    assert executed(smoke.repro()) == ["compose", "train", "evaluate"]
    assert sweep.end() == 0, sweep.output
    assert states(smoke) == ["done"] * 4
