"""Import modules once, in the two processes from which the processes of a sweep are forked.

Importing Keras, MLflow and DVC takes longer than training a small model. On each machine, two processes
import them in parallel: one imports Keras, for the workers, and one DVC, for the trials and for publishing.
"""

import importlib
import os
import select
import socket
import sys
from collections.abc import Sequence

from pipeline.artifacts.workspace import Workspace, here
from pipeline.environment import import_keras, prepare_environment, quiet_tensorflow
from pipeline.processes.fork_server import ForkServer, serve
from pipeline.processes.system import die_with_parent

DVC, KERAS = "dvc", "keras"


def start_fork_server(code: Workspace, backend: str = "tensorflow") -> ForkServer:
    """Start a fork server with the package in `code` and the pools DVC and KERAS.

    If the expected backend is not TensorFlow, Keras is imported only when a worker with it is requested,
    because JAX workers are forked from the other pool.
    """
    return ForkServer(code, __name__, (DVC, KERAS), backend)


def _main(others: socket.socket, workers: socket.socket, backend: str) -> None:
    """Run the two processes: one handles requests at `others`, the other one those at `workers`."""
    prepare_environment(here().scratch / "home")
    _import(_BY_BOTH)
    if os.fork():
        workers.close()
        _import(_BY_OTHERS)
        serve(others)
    else:
        die_with_parent()
        others.close()
        if backend != "tensorflow":
            select.select([workers], [], [])
        with quiet_tensorflow():
            import_keras()
        _import(_BY_WORKERS)
        serve(workers)


def _import(modules: Sequence[str]) -> None:
    with quiet_tensorflow():
        for module in modules:
            importlib.import_module(module)


_BY_BOTH = (
    "mlflow.store.tracking.sqlalchemy_store",
    "pipeline.tracking.session",
    "pipeline.results.figures.draw",
)
_BY_WORKERS = (
    "pipeline.stages.train",
    "pipeline.artifacts.model_file",
    "pipeline.training.backends.tensorflow",
    "pipeline.training.loop",
    "pipeline.training.onnx_export",
    "pipeline.stages.evaluate",
    "pipeline.trials.worker",
    # The export to ONNX imports these only when it needs them.
    "onnxruntime",
    "tf2onnx",
)
_BY_OTHERS = (
    "pipeline.trials.trial",
    "pipeline.results.publish",
    # DVC imports these only when it needs them.
    "configobj",
    "dvc._debug",
    "dvc.analytics",
    "dvc.cachemgr",
    "dvc.cli.parser",
    "dvc.data_cloud",
    "dvc.dirs",
    "dvc.repo.artifacts",
    "dvc.repo.datasets",
    "dvc.repo.graph",
    "dvc.repo.index",
    "dvc.repo.metrics",
    "dvc.repo.open_repo",
    "dvc.repo.params",
    "dvc.repo.plots",
    "dvc.repo.reproduce",
    "dvc.repo.stage",
    "dvc.repo.trie",
    "dvc.rwlock",
    "dvc.scm",
    "dvc.utils.strictyaml",
    "dvc_data.hashfile._progress",
    "dvc_data.hashfile.db.local",
    "dvc_data.hashfile.status",
    "fsspec.implementations.memory",
    "networkx",
    "scmrepo.git",
    "ruamel.yaml.cyaml",
    "ruamel.yaml.mergevalue",
)


if __name__ == "__main__":
    die_with_parent()
    first, second, backend = sys.argv[1:]
    _main(socket.socket(fileno=int(first)), socket.socket(fileno=int(second)), backend)
