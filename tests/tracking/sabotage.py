"""Ways to damage a repository, each with what `pipeline verify` says about it."""

import hashlib
import os
import shutil

from harness import client, config

from pipeline.registry.journal import path_of
from pipeline.verification.cache import Cache

TRACKING = config().tracking


def md5(content):
    return hashlib.md5(content).hexdigest()


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def place(repository, path):
    [output] = [found for found in Cache(repository).files() if found.path == path]
    return Cache(repository).place(output.md5)


def own_run(repository):
    return client(repository).get_model_version("digits", "1").run_id


def in_mlruns(repository, name):
    [path] = (repository.root / "mlruns").rglob(name)
    return path


SABOTAGE = {
    "a flipped byte in a cached object": (
        lambda repository: flip(place(repository, "models/model.keras")),
        "is damaged: models/model.keras, an output of train",
    ),
    "a missing object": (
        lambda repository: place(repository, "reports/figures/confusion.png").unlink(),
        "is missing: reports/figures/confusion.png, an output of evaluate",
    ),
    "the list of a folder is missing": (
        lambda repository: next(Cache(repository).objects.glob("??/*.dir")).unlink(),
        "is missing: reports/figures, an output of evaluate",
    ),
    "a flipped byte in a model in mlruns/": (
        lambda repository: flip(in_mlruns(repository, "model.onnx")),
        "data/model.onnx of the model of ",
    ),
    "a foreign loader in an MLmodel": (
        lambda repository: flip(in_mlruns(repository, "MLmodel")),
        "MLmodel of the model of ",
    ),
    "a flipped byte in MLflow's probabilities.npy": (
        lambda repository: flip(in_mlruns(repository, "probabilities.npy")),
        "probabilities.npy of the run ",
    ),
    "a flipped byte in MLflow's findings.csv": (
        lambda repository: flip(in_mlruns(repository, "findings.csv")),
        "data/findings.csv of the run ",
    ),
    "a flipped byte in probabilities.npy": (
        lambda repository: flip(repository.probabilities),
        "reports/probabilities.npy differs from dvc.lock: an output of evaluate",
    ),
    "an exchanged model": (
        lambda repository: shutil.copy(repository.onnx, repository.model),
        "models/model.keras is not the model of the run",
    ),
    "an empty run.json": (
        lambda repository: os.truncate(repository.run, 0),
        "models/run.json is damaged: ",
    ),
    "a file more in a folder": (
        lambda repository: (repository.figures / "foreign.png").write_bytes(b"png"),
        "reports/figures/foreign.png is not among the outputs of evaluate",
    ),
    "other metrics": (
        lambda repository: repository.metrics.write_text(
            repository.metrics.read_text().replace('"test_accuracy": 0.95', '"test_accuracy": 0.99')
        ),
        "reports/predictions.csv and reports/metrics.json have different accuracies",
    ),
    "a cut journal line": (
        lambda repository: os.truncate(path_of(TRACKING, repository, "digits"), 100),
        "Line 1 of ",
    ),
    "a version of another model": (
        lambda repository: client(repository).set_model_version_tag(
            "digits", "1", "pipeline.model_sha256", 64 * "0"
        ),
        "Version 1 of digits is not the model of its run",
    ),
    "a metric set by hand": (
        lambda repository: client(repository).log_metric(own_run(repository), "test_accuracy", 0.99),
        "is 0.99 in MLflow, but 0.95 in its metrics.json",
    ),
    "the run of the champion was deleted": (
        lambda repository: client(repository).delete_run(own_run(repository)),
        "champion of digits belongs to the run smoke-",
    ),
    "an alias set by hand": (
        lambda repository: client(repository).delete_registered_model_alias("digits", "champion"),
        "champion of digits is no version, but the journal says version 1",
    ),
}
