"""Searches from the command line continue after a kill, prune trials, and find better values."""

import json
import re
from pathlib import Path

import pytest
from clones import until

from pipeline.config.compose import compose_each
from pipeline.sweeps.command import parse
from pipeline.sweeps.space import combination, space_of

CONF = Path(__file__).parents[2] / "conf"
EXAMPLES = sorted(path.stem for path in (CONF / "sweep").glob("*.yaml") if path.stem != "default")
RATE = "train.learning_rate=tag(log, interval(0.001, 0.1))"


def search_of(*overrides):
    return ("python", "-m", "pipeline", "-m", "hydra/sweeper=optuna", *overrides)


def trials_of(clone) -> list[dict]:
    [path] = (clone.root / ".pipeline/sweeps").glob("*/report.json")
    return json.loads(path.read_text())["trials"]


def times_trained(clone) -> int:
    """Return how many trainings of the search began."""
    logs = (clone.root / ".pipeline/sweeps").glob("*/trials/*.log")
    return sum(len(re.findall("^Training ", path.read_text(), re.MULTILINE)) for path in logs)


@pytest.mark.slow
def test_a_search_whose_driver_was_killed_continues_with_the_same_values(smoke, start):
    smoke.edit("conf/experiment/smoke.yaml", "epochs: 5", "epochs: 600")
    command = search_of(RATE, "hydra/launcher=basic")
    search = start(smoke, *command, "sweep.n_trials=3")
    until(lambda: times_trained(smoke) == 2 or search.process.poll() is not None)
    search.process.kill()
    search.end()
    until(lambda: not smoke.processes())
    [journal] = (smoke.root / ".pipeline/sweeps").glob("*/journal.log")
    before = journal.read_text()

    assert "3 trials: 1 known, 2 to run, 1 at a time" in smoke.run(*command, "sweep.n_trials=3")
    after = journal.read_text()
    assert after.startswith(before)
    assert [trial["state"] for trial in trials_of(smoke)] == ["known", "done", "done"]
    created = [line for line in after.splitlines() if json.loads(line)["op_code"] == 4]
    assert len(created) == 3  # The trial that was running is not counted twice.
    assert times_trained(smoke) == 4

    # With more trials it continues; without any time left, nothing starts.
    done = trials_of(smoke)
    more = smoke.run(*command, "sweep.n_trials=5", "sweep.timeout=0.000001")
    assert "3 trials: 3 known" in more
    assert [trial["differs"] for trial in trials_of(smoke)] == [trial["differs"] for trial in done]
    runs = [run for run in smoke.mlflow_runs() if "pipeline.id" in run.data.tags]
    # The clone's own run, and one for each trial: the killed attempt belongs to the same training.
    assert [run.info.status for run in runs] == ["FINISHED"] * 4
    assert smoke.changes() == " M conf/experiment/smoke.yaml\n"


@pytest.mark.slow
def test_a_pruned_trial_is_marked_in_mlflow_leaves_nothing_and_is_no_failure(smoke):
    bad = "1e-05"
    values = f"train.learning_rate=0.01,0.011,0.012,0.013,0.014,{bad}"
    settings = next(compose_each(CONF, [["sweep.sampler=grid"]])).sweep
    space = space_of(parse([values], {}), settings)
    [seed, *_] = [seed for seed in range(99) if combination(space, 5, seed) == {"train.learning_rate": bad}]
    output = smoke.run(
        *search_of(values, f"sweep.seed={seed}", "sweep.sampler=grid", "sweep.pruner=median"),
        "hydra/launcher=basic",
    )
    assert "6 trials: 0 known, 6 to run" in output
    *others, last = trials_of(smoke)
    assert [trial["state"] for trial in others] == ["done"] * 5
    assert (last["state"], last["differs"]) == ("pruned", {"train.learning_rate": bad})
    assert re.match(r"val_accuracy [\d.]+ % in epoch \d of 5, worse than others", last["error"])
    assert f"pruned: learning_rate=1e-05: {last['error']}" in output or last["error"] in output

    [run] = [run for run in smoke.mlflow_runs() if "pipeline.pruned" in run.data.tags]
    assert run.info.status == "KILLED"
    assert run.data.tags["pipeline.pruned"] == last["error"]
    assert "mlflow.parentRunId" in run.data.tags
    assert 1 <= len(smoke.curve(run, "val_accuracy")) < 5
    assert not [path for path in (smoke.root / ".pipeline/trials").iterdir() if path.suffix != ".lock"]
    assert "Training" in smoke.pipeline(f"train.learning_rate={bad}")  # DVC has no incomplete result of it.


def test_a_space_that_cannot_be_searched_is_refused_before_anything_starts(smoke):
    for overrides, said in (
        (["train.learning_rate=interval(0.1, 1)", "sweep.sampler=grid"], "sweep.sampler=grid needs values"),
        (["train.epochs=interval(1, 3)"], "Whole numbers are int(interval(1, 9))."),
        (["train.epochs=3"], "A search needs something to search"),
        ([RATE, "preprocess.validation_fraction=0.0"], "there are no validation images"),
    ):
        output = smoke.run(*search_of(*overrides), code=1)
        assert [line for line in output.splitlines() if line.startswith("error: ")], output
        assert said in output
        assert "Traceback" not in output
    assert not list((smoke.root / ".pipeline").glob("sweeps/*/report.json"))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_in_conf_run(smoke, name):
    output = smoke.pipeline("-m", f"sweep={name}", "sweep.n_trials=3")
    states = [trial["state"] for trial in trials_of(smoke)]
    # A grid has one trial for each combination, and the default one is the clone's own training.
    assert len(states) == 3 or "optuna" not in (CONF / "sweep" / f"{name}.yaml").read_text()
    known = states.count("known")
    assert f"{len(states)} trials: {known} known, {len(states) - known} to run" in output
    assert set(states) <= {"known", "done"}
    assert known < 2


@pytest.mark.slow
def test_forty_trials_find_a_better_validation_accuracy_than_the_default(smoke):
    history = smoke.workspace.history.read_text().splitlines()
    [kept] = [line.split(",") for line in history[1:] if line.endswith(",1")]
    default = float(kept[history[0].split(",").index("val_accuracy")])
    trials = []
    while len(trials) < 40:  # On a slow machine, continue when the time was over.
        smoke.run(*search_of(RATE, "sweep.n_trials=40", "sweep.pruner=median", "sweep.timeout=120"))
        trials = trials_of(smoke)
    assert len(trials) == 40
    assert {trial["state"] for trial in trials} <= {"done", "known", "pruned"}
    assert max(trial["values"].get("val_accuracy", 0) for trial in trials) > default
