"""The best trial of a sweep becomes an experiment, and is restored instead of trained again."""

import json
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from clones import executed


@pytest.mark.slow
def test_an_adopted_trial_is_restored_by_repro_and_compared_with_another(smoke):
    output = smoke.pipeline("-m", "train.learning_rate=0.01,0.002")
    [adopt] = [line for line in output.splitlines() if "pipeline adopt" in line]
    [compare] = [line for line in output.splitlines() if "pipeline compare" in line]
    assert output.splitlines()[-2:] == [adopt, compare]
    run = adopt.split()[-1]
    smoke.run("pipeline", "adopt", run, "--name", "winner")
    assert smoke.changes() == "?? conf/experiment/winner.yaml\n"

    smoke.edit("conf/config.yaml", "experiment: smoke", "experiment: winner")
    restored = smoke.repro()
    assert executed(restored) == ["compose"]
    assert "Stage 'train' is cached" in restored
    assert json.loads(smoke.workspace.run.read_text())["name"] == run

    # The name in MLflow ends in the same part of the id.
    assert re.search(rf"belongs to MLflow run \S+-{run[-6:]}: ", smoke.pipeline("experiment=winner"))
    shown = smoke.run(*compare.split())
    assert "train.learning_rate" in shown
    assert "McNemar" in shown or "nothing tells them apart" in shown


@pytest.mark.slow
def test_a_sweep_is_one_run_above_the_trials_that_it_trained(smoke):
    smoke.pipeline("-m", "train.learning_rate=0.001,0.01")
    # The first run was trained by `dvc repro` before.
    known, parent, child = smoke.mlflow_runs()
    assert known.info.run_name.startswith("smoke-")
    assert child.info.run_name.startswith("learning_rate=0.01-")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    # A run that was trained before stays at the top level, and names the sweep.
    assert "mlflow.parentRunId" not in known.data.tags
    assert f"pipeline.sweep.{parent.data.tags['pipeline.sweep']}" in known.data.tags
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["trials"] == 2

    output = smoke.pipeline("-m", "train.learning_rate=0.001,0.01")
    assert "MLflow run" not in output
    assert len(smoke.mlflow_runs()) == 3
    (smoke.root / "mlflow.db").unlink()
    shutil.rmtree(smoke.root / "mlruns")
    smoke.run("pipeline", "sync")
    assert parent.info.run_name in {run.info.run_name for run in smoke.mlflow_runs()}
    smoke.pipeline("-m", "train.learning_rate=0.001,0.01")
    rebuilt = {run.info.run_name: run for run in smoke.mlflow_runs()}
    assert len(rebuilt) == 3
    above = rebuilt[parent.info.run_name].info.run_id
    assert rebuilt[child.info.run_name].data.tags["mlflow.parentRunId"] == above
    assert "mlflow.parentRunId" not in rebuilt[known.info.run_name].data.tags
    for run in (known, child):
        place = Path(urlsplit(rebuilt[run.info.run_name].info.artifact_uri).path)
        assert {"samples.png", "findings.csv"} < {path.name for path in (place / "data").iterdir()}
