"""Sweeps on a Ray cluster, and what docs/scale.md tells to do on several machines."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from clones import PATIENCE, until


class RunningCluster:
    def __init__(self, environment):
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("cluster.py"))],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._process.stdout.readline().strip()

    def kill_a_node(self):
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "killed\n"

    def end(self):
        self._process.stdin.close()
        self._process.wait(PATIENCE)


@pytest.fixture
def cluster(environment):
    running = RunningCluster(environment)
    yield running
    running.end()


def progress_of(clone):
    noted = [
        json.loads(path.read_text()) for path in (clone.root / ".pipeline/sweeps").glob("*/trials/*.json")
    ]
    return [each["state"] for each in noted]


@pytest.mark.slow
def test_a_sweep_runs_on_all_nodes_and_outlives_the_loss_of_one(smoke, cluster, start):
    smoke.edit("conf/experiment/smoke.yaml", "epochs: 5", "epochs: 200")
    sweep = start(
        smoke,
        *("python", "-m", "pipeline", "-m", "seed=1,2,3,4,5,6", "hydra/launcher=ray"),
        f"hydra.launcher.address={cluster.address}",
    )
    # A node has one CPU: two trials at once are on two nodes.
    until(lambda: progress_of(smoke).count("running") == 2 or sweep.process.poll() is not None)
    assert "6 trials: 0 known, 6 to run, 2 at a time (hydra/launcher=ray)." in sweep.output
    cluster.kill_a_node()
    assert sweep.end() == 0, sweep.output
    assert progress_of(smoke) == ["done"] * 6
    assert "6 of 6" in sweep.output
    assert "Traceback" not in sweep.output
    until(lambda: not smoke.processes())


def test_a_cluster_that_is_not_there_is_told_in_a_sentence(smoke):
    overrides = ("seed=0,1", "hydra/launcher=ray", "hydra.launcher.address=127.0.0.1:9")
    told = smoke.pipeline("-m", *overrides, code=1)
    assert "error: No Ray cluster answers at 127.0.0.1:9" in told
    assert "Traceback" not in told
