import shutil
import socket
import tempfile
from pathlib import Path

import keras
import numpy as np
import promoting
import pytest
from harness import Server, client, dataset, lay_out

from pipeline.artifacts import model_file
from pipeline.artifacts.onnx_file import Description, RunName, write
from pipeline.artifacts.workspace import Workspace
from pipeline.config.section import ReaderSection
from pipeline.models import inference_model
from pipeline.training.onnx_export import export


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    """Hide the tracking settings of other tests and of the user who runs the tests."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def black_hole():
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture(scope="session")
def memory():
    """A folder in memory if possible, because SQLite waits for the disk at each commit."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def tmp_path(memory):
    return Path(tempfile.mkdtemp(dir=memory))


@pytest.fixture(scope="session")
def model(memory):
    """A real model for 8×8 images and ten classes, in the two files that train writes."""
    keras.utils.set_random_seed(0)
    path = memory / "model.keras"
    network = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    model = inference_model(network, (8, 8))
    model_file.save(model, path)
    description = Description(
        run=RunName(id="0" * 32, name="digits-mlp"),
        data="digits",
        classes=tuple("0123456789"),
        image_shape=(8, 8),
        reader=ReaderSection.model_validate(dataset().reader),
        weights_sha256=model_file.weights_digest(model),
    )
    exported, _ = export(model, description, np.zeros((1, 64), np.uint8))
    write(path.with_suffix(".onnx"), exported, description)
    return path


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="session")
def empty_store(memory):
    """MLflow's tables, which take seconds to create; test_sync.py creates its own."""
    path = memory / "empty.db"
    client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def workspace(tmp_path, model, empty_store):
    workspace = lay_out(Workspace(tmp_path / "work"), model)
    shutil.copy(empty_store, workspace.root / "mlflow.db")
    return workspace


@pytest.fixture(scope="session")
def evaluated_runs(memory, model, empty_store):
    """A repository with the evaluated runs of promoting.py, to be copied."""
    workspace = lay_out(Workspace(memory / "promoted"), model)
    shutil.copy(empty_store, workspace.root / "mlflow.db")
    return promoting.add_evaluated_runs(workspace)


@pytest.fixture(scope="module")
def server(memory, empty_store):
    # Each has its own database, because runs with the same inputs have the same id in every module.
    folder = Path(tempfile.mkdtemp(dir=memory))
    shutil.copy(empty_store, folder / "server.db")
    server = Server(folder).start()
    yield server
    server.kill()
