"""The stage train with Keras on JAX, in its own process: it writes the same files as with TensorFlow."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts import onnx_file
from pipeline.artifacts.model_file import load, weights_digest
from pipeline.artifacts.workspace import Workspace
from pipeline.config.compose import compose
from pipeline.config.params import dump
from pipeline.errors import PipelineError
from pipeline.stages import fetch, preprocess
from pipeline.training import onnx_process

REPOSITORY = Path(__file__).parents[2]
TRAIN = """
import sys
from pathlib import Path
from pipeline import environment
from pipeline.artifacts.workspace import Workspace
from pipeline.config.params import read_params
workspace = Workspace(Path.cwd())
environment.prepare_environment(workspace.root / "home")
config = read_params(workspace.params)
environment.import_keras(config.train.target)
from pipeline.stages import train
import jax
found = []
jax.monitoring.register_event_listener(lambda event, **_: found.append(event))
train.run(config, workspace)
print(*(found.count(f"/jax/compilation_cache/cache_{what}") for what in ("hits", "misses")))
assert "tensorflow" not in sys.modules
"""


def test_a_jax_model_is_saved_for_keras_and_onnx_like_any_other(tmp_path):
    workspace = Workspace(tmp_path)
    config = compose(REPOSITORY / "conf", ["experiment=smoke", "train.backend=jax", "train.epochs=2"])
    workspace.params.write_text(dump(config))
    fetch.run(config, workspace)
    preprocess.run(config, workspace)
    done = subprocess.run([sys.executable, "-c", TRAIN], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    model, classifier = load(workspace.model), onnx_file.load(workspace.onnx)
    assert weights_digest(model) == classifier.description.weights_sha256
    assert classifier.description.unlike is not None
    images = np.load(workspace.processed / "validation" / "images.npy").reshape(-1, 8, 8)
    found = classifier.probabilities(images)
    np.testing.assert_allclose(found, model.predict_on_batch(images), atol=1e-5)
    labels = np.load(workspace.processed / "validation" / "labels.npy")
    last = workspace.history.read_text().splitlines()[-1].split(",")
    # TensorFlow and ONNX Runtime compute the same validation results as JAX.
    assert f"{(found.argmax(1) == labels).mean():.4f}" in [f"{float(value or 0):.4f}" for value in last]


def test_what_was_compiled_is_not_compiled_again_and_damage_is_neither_used_nor_shown(tmp_path):
    workspace = Workspace(tmp_path)
    config = compose(REPOSITORY / "conf", ["experiment=smoke", "train.backend=jax", "train.epochs=1"])
    fetch.run(config, workspace)
    preprocess.run(config, workspace)

    def trained(**values):
        changed = config.train.model_copy(update=values)
        workspace.params.write_text(dump(config.model_copy(update={"train": changed})))
        done = subprocess.run([sys.executable, "-c", TRAIN], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        kept, compiled = map(int, done.stdout.splitlines()[-1].split())
        return kept, compiled, workspace.model.read_bytes()

    _, *first = trained()
    kept, compiled, _ = trained(learning_rate=0.5, epochs=2)
    assert kept > 5
    assert compiled <= 1
    for path in (workspace.scratch / "compiled").glob("*/*"):
        path.write_bytes(path.read_bytes()[:-20])
    _, *again = trained()
    assert again == first


def test_the_export_process_starts_with_the_training_and_ends_if_it_fails():
    def children():
        return {
            pid
            for task in Path("/proc/self/task").iterdir()
            for pid in (task / "children").read_text().split()
        }

    def fail():
        with onnx_process.exporter():
            assert len(children() - before) == 1
            raise ZeroDivisionError

    before = children()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert children() == before


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["train.device=gpu"], "device is gpu, which needs backend jax"),
        (["train.devices=2"], "devices is 2, which needs backend jax"),
        (["train.backend=jax", "train.xla=false"], "JAX always compiles with XLA"),
        (
            ["train.backend=jax", "train.devices=3"],
            "batch_size is 32, which can't be divided evenly among 3 devices",
        ),
    ],
)
def test_settings_that_a_backend_does_not_support_are_refused_before_any_work(overrides, sentence):
    with pytest.raises(PipelineError, match=sentence):
        compose(REPOSITORY / "conf", overrides)


def test_the_device_auto_is_resolved_when_the_configuration_is_composed():
    for backend in ("tensorflow", "jax"):
        config = compose(REPOSITORY / "conf", [f"train.backend={backend}"])
        assert config.train.device == "cpu"  # There is no GPU where the tests run.
    assert "device: cpu" in dump(config)
    # A model that was trained on a GPU is restored from the cache even without a GPU.
    assert compose(REPOSITORY / "conf", ["train.backend=jax", "train.device=gpu"]).train.device == "gpu"


def test_a_training_for_a_gpu_is_refused_without_one():
    code = (
        "from pipeline.environment import *; target = Target('jax', 'gpu'); import_keras(target)\n"
        "try: use(target)\nexcept PipelineError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("train.device is gpu, and JAX finds none here.")


def test_the_digest_of_the_backend_in_use_is_in_the_configuration():
    digests = {
        compose(REPOSITORY / "conf", [f"train.backend={name}"]).modules.backend
        for name in ("tensorflow", "jax")
    }
    assert len(digests) == 2
