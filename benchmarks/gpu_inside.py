"""Train in this process and measure from inside; started by `benchmarks.gpu`.

    python -m benchmarks.gpu_inside '{"recipe": FOLDER, "seeds": [0], ...}'

Does not need DVC, MLflow and Hydra, nor TensorFlow if JAX is used. The last line of the output is JSON.
"""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from pipeline import environment
from pipeline.artifacts.processed import SCALE, read_dataset, read_split
from pipeline.artifacts.workspace import Workspace
from pipeline.config.params import read_params
from pipeline.config.schema import Config


@dataclass
class Asked:
    """What to train."""

    recipe: str  # a folder with params.yaml and data/processed
    began: float  # when the process was started, in seconds since 1970
    seeds: list[int] = field(default_factory=lambda: [0])
    train: dict[str, Any] = field(default_factory=dict)  # values that replace those of the recipe
    flags: str = ""  # of XLA, instead of those that the stage sets for a GPU
    products: str = ""  # jax_default_matmul_precision
    unrolled: int = 0  # steps that are compiled as one; 0: the default of the backend
    judged: bool = False  # whether to evaluate on the test images


@dataclass
class Found:
    """The results of the trainings."""

    device: str = ""
    imports: float = 0.0  # seconds from the start of the process to the end of the imports
    stage: float = 0.0  # seconds from the start of the process until the first seed's model is written
    epochs: list[list[float]] = field(default_factory=list)  # seconds of each epoch, for each seed
    weights: list[str] = field(default_factory=list)
    validation: list[float | None] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    test_tta: list[float] = field(default_factory=list)
    peak_bytes: int = 0  # of the GPU's memory, from JAX's allocator


def main(asked: Asked) -> Found:
    """Train each seed, one after the other."""
    workspace = Workspace(Path(asked.recipe).absolute())
    environment.prepare_environment(workspace.scratch / "home")
    environment.CARD_FLAGS = asked.flags or environment.CARD_FLAGS
    if asked.products:
        os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = asked.products
    written = read_params(workspace.params)
    train = type(written.train).model_validate(written.train.model_dump() | asked.train)
    environment.import_keras(train.target)
    from pipeline.artifacts import model_file
    from pipeline.stages.train import fit_model

    if asked.unrolled:
        from pipeline.training.backends import jax as backend

        backend.UNROLLED = asked.unrolled

    found = Found(imports=time.time() - asked.began)
    for seed in asked.seeds:
        config = Config.model_construct(
            seed=seed,
            model=written.model,
            train=train,
            modules=written.modules,
        )
        marks = [time.time()]
        fitted = fit_model(config, workspace, lambda epoch: marks.append(time.time()))  # noqa: B023
        model_file.save(fitted.model, workspace.root / f"{seed}.keras")
        fitted.checkpoints.discard()
        found.stage = found.stage or time.time() - asked.began
        found.epochs.append(np.diff(marks).round(4).tolist())
        found.weights.append(model_file.weights_digest(fitted.model))
        found.validation.append(fitted.history.best.val_accuracy)
        if asked.judged:
            judge(fitted.model, workspace, found)
    if train.backend == "jax":
        import jax

        device = jax.devices()[0]
        found.device = device.device_kind
        found.peak_bytes = (device.memory_stats() or {}).get("peak_bytes_in_use", 0)
    return found


def judge(model: Any, workspace: Workspace, found: Found) -> None:
    """Add the accuracy on the test images to `found`, without and with test-time augmentation."""
    import jax

    from pipeline.stages.evaluate import predict

    dataset = read_dataset(workspace)
    images, labels = read_split(workspace, "test")
    # Without the preprocessing layers, for which Keras needs TensorFlow.
    network = next(layer for layer in model.layers if hasattr(layer, "layers"))
    owned = network.trainable_variables, network.non_trainable_variables
    values = [[variable.value for variable in variables] for variables in owned]

    @jax.jit
    def compute(images: Any) -> Any:
        pixels = images.reshape(len(images), -1).astype("float32") * np.float32(SCALE)
        return jax.nn.softmax(network.stateless_call(*values, pixels, training=False)[0])

    classifier = SimpleNamespace(
        description=dataset, probabilities=lambda images: np.asarray(compute(images))
    )
    plain, averaged = predict(classifier, images, dataset, tta_shift=1)  # type: ignore[arg-type]
    found.test.append(float((plain.argmax(1) == labels).mean()))
    found.test_tta.append(float((averaged.argmax(1) == labels).mean()))


if __name__ == "__main__":
    print(json.dumps(asdict(main(Asked(**json.loads(sys.argv[1]))))))
