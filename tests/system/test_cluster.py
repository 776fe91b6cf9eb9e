"""Sweeps on a Ray cluster, and the commands of docs/scale.md."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from clones import clone_of, until
from filelock import FileLock

from servers import CREDENTIALS, PATIENCE, answers, free_port

REPOSITORY = Path(__file__).parents[2]
COMMANDS = re.findall(r"^\$ (.+)$", (REPOSITORY / "docs" / "scale.md").read_text(), re.MULTILINE)


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
def alone(tmp_path_factory):
    """Only one test at a time may use Ray, because `ray stop` stops all Ray processes on the machine."""
    with FileLock(tmp_path_factory.getbasetemp().parent / "ray.lock"):
        yield


@pytest.fixture
def cluster(alone, environment):
    running = RunningCluster(environment)
    yield running
    running.end()


def progress_of(clone):
    noted = (clone.root / ".pipeline/sweeps").glob("*/trials/*.json")
    return [json.loads(path.read_text())["state"] for path in noted]


@pytest.mark.slow
def test_a_sweep_runs_on_all_nodes_and_survives_the_loss_of_one(smoke, cluster, start):
    smoke.edit("conf/experiment/smoke.yaml", "epochs: 5", "epochs: 200")
    sweep = start(
        smoke,
        *("python", "-m", "pipeline", "-m", "seed=1,2,3,4,5,6", "hydra/launcher=ray"),
        f"hydra.launcher.address={cluster.address}",
    )
    # A node has one CPU, so two trials at once run on two nodes.
    until(lambda: progress_of(smoke).count("running") == 2 or sweep.process.poll() is not None)
    assert "6 trials: 0 known, 6 to run, 2 at a time (hydra/launcher=ray)." in sweep.output
    cluster.kill_a_node()
    assert sweep.end() == 0, sweep.output
    assert progress_of(smoke) == ["done"] * 6
    assert "6 of 6" in sweep.output
    assert "Traceback" not in sweep.output
    until(lambda: not smoke.processes())


def test_a_missing_cluster_is_reported_in_a_sentence(smoke):
    overrides = ("seed=0,1", "hydra/launcher=ray", "hydra.launcher.address=127.0.0.1:9")
    told = smoke.pipeline("-m", *overrides, code=1)
    assert "error: No Ray cluster answers at 127.0.0.1:9" in told
    assert "Traceback" not in told


@pytest.mark.slow
def test_every_command_of_the_page_on_several_machines(smoke, tmp_path, alone, s3, postgresql, start):
    ray_port, tracking_port = free_port(), free_port()
    bucket, s3_address = s3
    ours = {
        "https://s3.example.org": s3_address,
        "db.example.org": f"127.0.0.1:{postgresql}",
        "--host 0.0.0.0 --port 5000": f"--host 127.0.0.1 --port {tracking_port}",
        "tracking.example.org:5000": f"127.0.0.1:{tracking_port}",
        "tracking.example.org": "127.0.0.1",
        "--port=6379": f"--port={ray_port} --node-ip-address=127.0.0.1",
        "head.example.org:6379": f"127.0.0.1:{ray_port}",
    }
    smoke.environment |= {
        **CREDENTIALS,
        "MLFLOW_S3_ENDPOINT_URL": s3_address,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    smoke.pipeline("-m", "train.epochs=1", "seed=0,1")
    printed = {}
    for command in COMMANDS:
        typed = command
        for name, own in ours.items():
            typed = typed.replace(name, own)
        assert "example.org" not in typed
        if typed.startswith("export "):
            name, _, value = typed.removeprefix("export ").partition("=")
            smoke.environment[name] = value
        elif typed.startswith("mlflow server"):
            start(smoke, "bash", "-c", f"exec {typed}")
            until(lambda: answers(tracking_port))
        elif typed == "pipeline pull":
            other = clone_of(smoke, tmp_path / "other")
            other.environment = dict(smoke.environment)
            assert "Fetched " in other.run("bash", "-c", typed)
            assert "2 trials: 2 known" in other.pipeline("-m", "train.epochs=1", "seed=0,1")
        else:
            printed[command] = smoke.run("bash", "-c", typed)
    assert "Sent " in printed["pipeline push"]
    [swept] = [text for command, text in printed.items() if "launcher=ray" in command]
    # The previous command trained the seed 0.
    assert "2 trials: 1 known, 1 to run, 1 at a time (hydra/launcher=ray)." in swept
    assert "1 of 1: seed=1" in swept

    import mlflow

    server = mlflow.MlflowClient(smoke.environment["MLFLOW_TRACKING_URI"])
    [experiment] = [found for found in server.search_experiments() if found.name == "image-classifier"]
    runs = server.search_runs([experiment.experiment_id])
    assert sum("pipeline.sweep" in run.data.tags for run in runs) == 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    kept = [found["Key"] for found in bucket.list_objects_v2(Bucket="pipeline-runs")["Contents"]]
    assert any(key.endswith("model.keras") for key in kept), kept
