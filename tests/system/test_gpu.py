"""The commands of docs/gpu.md work, here with JAX on the CPU."""

import json
import re
from pathlib import Path

import pytest
from clones import executed

PAGE = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text()
COMMANDS = re.findall(r"^\$ (.+)$", PAGE, re.MULTILINE)


@pytest.mark.slow
def test_jax_trains_through_the_whole_pipeline_and_in_the_workers_of_a_sweep(smoke):
    setup, command = COMMANDS
    assert setup == "make setup EXTRAS=jax"
    smoke.run("bash", "-c", command)
    [run] = [one for one in smoke.mlflow_runs() if one.data.params.get("train.backend") == "jax"]
    assert run.data.params["train.device"] == "cpu"
    assert run.data.tags["device"] == "1 × cpu"
    # A sweep restores what was trained before, and trains new trials in warm workers.
    smoke.pipeline("-m", "experiment=smoke", "train.backend=jax,tensorflow", "seed=0,1")
    assert len(smoke.mlflow_runs()) >= 4
    smoke.edit("conf/train/default.yaml", "backend: tensorflow", "backend: jax")
    assert executed(smoke.repro()) == ["compose"]
    weights = json.loads(smoke.workspace.metrics.read_text())["weights_sha256"]
    assert weights == run.data.tags["pipeline.weights_sha256"]
