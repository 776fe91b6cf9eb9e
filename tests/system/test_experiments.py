import json

import pytest
from clones import executed


def test_an_experiment_keeps_its_overrides(reproduced, smoke):
    output = smoke.run("dvc", "exp", "run", "-S", "experiment=smoke", "-S", "evaluate.calibration_bins=20")
    assert executed(output) == ["compose", "evaluate"]
    assert "calibration_bins: 20\n" in smoke.workspace.params.read_text()
    results = smoke.digests()
    assert results["reports/metrics.json"] != reproduced.digests()["reports/metrics.json"]
    assert executed(smoke.repro()) == []
    assert "calibration_bins: 20\n" in smoke.workspace.params.read_text()
    assert smoke.digests() == results


@pytest.mark.slow
def test_queued_experiments_run_with_their_own_values(smoke):
    smoke.run("dvc", "exp", "run", "--queue", "-S", "train.learning_rate=0.003,1e-5")
    smoke.run("dvc", "exp", "run", "--run-all")
    shown = json.loads(smoke.run("dvc", "exp", "show", "--json"))
    rates = [
        experiment["revs"][0]["data"]["params"]["params.yaml"]["data"]["train"]["learning_rate"]
        for baseline in shown
        for experiment in baseline["experiments"] or []
    ]
    assert sorted(rates) == [1e-5, 0.003]
    first, *queued = smoke.mlflow_runs()
    assert first.data.params["train.learning_rate"] == "0.001"
    assert sorted(float(run.data.params["train.learning_rate"]) for run in queued) == [1e-5, 0.003]
    assert {run.info.status for run in queued} == {"FINISHED"}
    assert smoke.changes() == ""


@pytest.mark.slow
def test_no_value_reaches_a_shell(smoke):
    for value in ("1; touch PWNED", "$(touch PWNED)", "`touch PWNED`", "x' && touch PWNED #"):
        quoted = value.replace("'", r"\'")
        for refused in (
            smoke.run("dvc", "exp", "run", "-S", f"name='{quoted}'", code=None),
            smoke.pipeline(f"name='{quoted}'", code=1),
        ):
            assert "error: " in refused
    assert not [path for path in smoke.files() if "PWNED" in path]
