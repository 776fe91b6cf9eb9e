"""Trainings with made-up epochs but real records, stores and models; can also run as a child process.

Usage: python harness.py VERB ROOT [URI] [SEED]. VERB is train, evaluate, hang (trains for an hour) or sync
(says whether it imported MLflow).
"""

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import numpy as np

from pipeline.artifacts.history import Epoch, History, Trained, write_history
from pipeline.artifacts.processed import Count, Dataset, read_dataset, write_dataset
from pipeline.artifacts.workspace import SPLITS, Workspace, sha256
from pipeline.config.compose import compose
from pipeline.config.messages import validate
from pipeline.config.params import dump
from pipeline.config.schema import Config
from pipeline.tracking import session as tracking
from pipeline.tracking.identity import describe_split

REPOSITORY = Path(__file__).parents[2]
BEST = 2
IMAGES = dict(zip(SPLITS, (1293, 144, 360), strict=True))


@functools.cache
def composed():
    return compose(REPOSITORY / "conf", ["experiment=smoke"])


def config(**changes):
    """Return the smoke configuration with other values: config(tracking={"uri": ...})."""
    values = composed().model_dump()
    for key, value in changes.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    return validate(values, Config)


def epochs(number=3, seed=0):
    return [Epoch(n, 1 / n + seed, 1 - 0.5 / n, 1.5 / n, 0.9 - 0.5 / n, 0.001) for n in range(1, number + 1)]


def lay_out(workspace, model=None):
    """Create what a workspace has before train: dvc.lock, dataset.json and the model that train writes."""
    workspace.root.mkdir(parents=True, exist_ok=True)
    workspace.dvc_lock.write_text("schema: '2.0'\n")
    write_dataset(workspace, dataset())
    workspace.data_figures.mkdir(exist_ok=True)
    for path in (workspace.samples, workspace.findings, workspace.data_figures / "balance.png"):
        path.write_text(f"what {path.name} shows")
    workspace.model.parent.mkdir(exist_ok=True)
    if model:
        shutil.copy(model, workspace.model)
        shutil.copy(model.with_suffix(".onnx"), workspace.onnx)
    else:
        workspace.model.write_bytes(b"no real model")
        workspace.onnx.write_bytes(b"no real model either")
    return workspace


def dataset(test="c"):
    """Return the description of the digits that preprocess would write, with made-up digests."""
    counts = {split: Count(images, (images,) + 9 * (0,)) for split, images in IMAGES.items()}
    letters = dict(zip(SPLITS, ("a", "b", test), strict=True))
    digests = {split: {"images": 64 * letter, "labels": 64 * letter} for split, letter in letters.items()}
    classes = tuple("0123456789")
    reader = composed().data.reader.model_dump(mode="json")
    return Dataset("digits", classes, (8, 8), reader, 1 / 255, counts, 0.3, 0.4, {}, digests)


def digests(workspace):
    """Return the digest of each split, as runs show it."""
    found = read_dataset(workspace)
    return {split: describe_split(found, split)["sha256"] for split in SPLITS}


def end_of_sending():
    """Wait for abandoned senders, which keep their records locked; a real stage would end them."""
    for thread in threading.enumerate():
        if thread.name == "mlflow":
            thread.join(patience())


def train(config, workspace, number=3, on_epoch=lambda epoch: None):
    workspace.params.write_text(dump(config))
    with tracking.training(config, workspace, {}) as run:
        made = epochs(number, config.seed)
        for epoch in made:
            run.log_epoch(epoch)
            on_epoch(epoch)
        write_history(workspace.history, History(made, BEST))
        run.finish(Trained(sha256(workspace.model), sha256(workspace.onnx), 650, number, BEST, None, 1.5))
    end_of_sending()


def evaluate(config, workspace, accuracy=0.75, figure="confusion"):
    workspace.params.write_text(dump(config))
    with tracking.evaluation(config, workspace):
        report(workspace, accuracy, figure)
    end_of_sending()


def report(workspace, accuracy=0.75, figure="confusion"):
    workspace.figures.mkdir(parents=True, exist_ok=True)
    (workspace.figures / "confusion.png").write_bytes(figure.encode())
    workspace.predictions.write_text("index,label\n0,1\n")
    workspace.per_class.write_text("class,precision\n")
    workspace.label_issues.write_text("index,label\n")
    workspace.model_card.write_text("# A model\n")
    np.save(workspace.probabilities, np.full((IMAGES["test"], 10), 0.1, np.float32))
    names = ("accuracy", "accuracy_low", "accuracy_high", "nll", "ece", "macro_f1", "errors")
    metrics = {**{f"test_{name}": 0.5 for name in names}, "generalisation_gap": 0.5}
    metrics["weights_sha256"] = sha256(workspace.model)
    workspace.metrics.write_text(json.dumps(metrics | {"test_accuracy": accuracy}))


def client(workspace):
    import mlflow

    uri = (
        workspace
        if isinstance(workspace, str)
        else "sqlite:///" + f"{workspace.root}/mlflow.db".replace("%", "%25")
    )
    mlflow.set_tracking_uri(uri)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    return mlflow.MlflowClient(uri)


def runs(workspace):
    """Return the runs of all experiments of a store."""
    ledger = client(workspace)
    return ledger.search_runs([found.experiment_id for found in ledger.search_experiments()])


def one_run(workspace):
    [run] = runs(workspace)
    return run


def curve(workspace, run, key="train_loss"):
    history = client(workspace).get_metric_history(run.info.run_id, key)
    return sorted((metric.step, metric.value) for metric in history)


def files(workspace, run, folder=None):
    found = []
    for item in client(workspace).list_artifacts(run.info.run_id, folder):
        found += files(workspace, run, item.path) if item.is_dir else [item.path]
    return sorted(found)


def kept(workspace):
    folder = workspace.scratch / "runs"
    return sorted(path for path in folder.glob("*") if path.is_dir())


def tree(root):
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in root.rglob("*")
        if path.is_file()
    }


def child(verb, workspace, *arguments, check=True, **environment):
    """Run this file in its own process."""
    return subprocess.run(
        [sys.executable, __file__, verb, workspace.root, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=check,
        env=os.environ | environment,
    )


def patience():
    """Return how long to wait, in seconds; a child process, which waits for nothing, lacks the module."""
    from servers import PATIENCE

    return PATIENCE


def until(condition):
    """Wait until a condition is true, which another process or thread causes, and return its value."""
    deadline = time.monotonic() + patience()
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition never became true"
        time.sleep(0.05)
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A real `mlflow server` that can be killed and started again.

    Args:
        folder: The folder of its SQLite database and its artifacts, by default.
        database: The address of another database.
        artifacts: The address of another place for artifacts.
        environment: Additional environment variables.
    """

    def __init__(self, folder, database=None, artifacts=None, **environment):
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._database = database or f"sqlite:///{folder}/server.db"
        self._artifacts = artifacts or f"{folder}/artifacts"
        self._environment = environment
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", self._database, "--artifacts-destination", self._artifacts]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_WORKERS": "1"}
        self.process = subprocess.Popen(
            command,
            env=os.environ | quiet | self._environment | {"MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until(lambda: self.process.poll() is not None or self._answers())
        assert self.process.poll() is None, "the MLflow server did not start"
        return self

    def _answers(self):
        with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5):
            return True
        return False

    def kill(self):
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def main(verb, root, uri="", seed="0"):
    workspace = Workspace(Path(root))
    settings = config(seed=int(seed), tracking={"uri": uri or None})
    if verb == "train":
        train(settings, workspace)
        evaluate(settings, workspace, accuracy=int(seed) / 10)
    elif verb == "evaluate":
        evaluate(settings, workspace)
    elif verb == "hang":
        train(settings, workspace, on_epoch=lambda epoch: time.sleep(3600))
    else:
        for line in tracking.sync(settings.tracking, workspace):
            print(line)
        print("mlflow imported:", "mlflow" in sys.modules)


if __name__ == "__main__":
    main(*sys.argv[1:])
