"""Measure where the time of a cold `dvc repro` goes, how close the loop is to its limit, and some settings.

    python -m benchmarks.profile

Writes the tables of docs/performance.md between its marks. Takes some minutes, preferably on an idle machine.
"""

import json
import shutil
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import REPOSITORY, Run, inside, measure, prepare_repository, put_between, run

PAGE = REPOSITORY / "docs" / "performance.md"
SETTINGS = [(model, threads, xla) for model in ("mlp", "cnn") for threads in (1, 2) for xla in (False, True)]
REPEATS = 3
STAGES = ("compose", "preprocess", "train", "evaluate")
CNN_IMAGES = 1000  # With XLA, an epoch of all images takes minutes.

IMPORTS = """
import importlib, sys
from pathlib import Path
from pipeline.environment import import_keras, prepare_environment, quiet_tensorflow

prepare_environment(Path.cwd() / ".home")
with quiet_tensorflow():
    if sys.argv[1] == "train":
        import_keras()
    importlib.import_module(f"pipeline.stages.{sys.argv[1]}")
"""


def main() -> None:
    """Measure everything and put the tables into the page."""
    with tempfile.TemporaryDirectory() as folder:
        fetched = prepare_repository(Path(folder) / "fetched")
        raw = fetched / "data" / "raw"
        images, labels = np.load(raw / "train_images.npy"), np.load(raw / "train_labels.npy")
        files = {"mlp": Path(folder) / "all.npz", "cnn": Path(folder) / "some.npz"}
        np.savez(files["mlp"], x_train=images, y_train=labels)
        np.savez(files["cnn"], x_train=images[:CNN_IMAGES], y_train=labels[:CNN_IMAGES])
        tables = {
            "repro": repro_table(fetched, Path(folder)),
            "limit": limit_table(files["mlp"]),
            "settings": settings_table(files),
        }
    for name, lines in tables.items():
        text = "\n".join(["", "", *lines, "", ""])
        put_between(f"<!-- {name} -->", f"<!-- end of {name} -->", text, PAGE)
    print(PAGE.read_text(encoding="utf-8"))


# --- a cold dvc repro --------------------------------------------------------------------------


def repro_table(fetched: Path, folder: Path) -> list[str]:
    """Measure each stage as DVC runs it, with only the raw data present; DVC's own part is what remains."""
    runs: dict[str, list[Run]] = {}
    for number in range(REPEATS):
        stages = shutil.copytree(fetched, folder / f"stages{number}", symlinks=True)
        for stage in STAGES:
            measure(runs, f"– its imports, {stage}", [sys.executable, "-c", IMPORTS, stage], stages)
            measure(runs, stage, [sys.executable, "-m", "pipeline.stages", stage], stages)
        workspace = shutil.copytree(fetched, folder / f"workspace{number}", symlinks=True)
        measure(runs, "whole", ["dvc", "repro"], workspace)
    medians = {name: np.median([(run.wall, run.cpu) for run in of], axis=0) for name, of in runs.items()}
    of_dvc = medians["whole"] - sum(medians[stage] for stage in STAGES)
    lines = []
    for stage in STAGES:
        imports = medians[f"– its imports, {stage}"]
        lines += [_row(stage, *medians[stage]), _row("– its imports", *imports)]
    lines.append(_row("DVC: its imports, digests, copies to the cache, git", *of_dvc))
    lines.append(_row("**all**", *medians["whole"]))
    return ["| part | wall | CPU |", "|---|---|---|", *lines]


def _row(name: str, wall: float, cpu: float) -> str:
    return f"| {name} | {wall:.1f} s | {cpu:.1f} s |"


# --- the limit ---------------------------------------------------------------------------------


def limit_table(npz: Path) -> list[str]:
    """Measure how long the arithmetic of an epoch of the baseline takes at the rates of this machine."""
    found = json.loads(run([sys.executable, "-m", "benchmarks.profile", "limit"], REPOSITORY))
    epoch = json.loads(run([*inside("epoch-loop", npz), "train.xla=true"], REPOSITORY))["cpu"]
    print(f"limit: {found}, epoch: {epoch}", file=sys.stderr)
    flops = found["flops"]
    rows = [
        (f"at the rate of a large product, {found['peak'] / 1e9:.0f} GFLOP/s", flops / found["peak"]),
        (
            f"the products of the design alone, {flops / found['products'] / 1e9:.0f} GFLOP/s",
            found["products"],
        ),
        ("Adam's steps alone", found["adam"]),
        ("**the loop's epoch**, validation included", epoch),
    ]
    return [
        f"One epoch: {flops / 1e9:.1f} GFLOP in {found['steps']:,} steps, one thread.",
        "",
        "| what | CPU | of the loop's epoch |",
        "|---|---|---|",
        *(f"| {name} | {seconds:.2f} s | {100 * seconds / epoch:.0f} % |" for name, seconds in rows),
    ]


def measure_limit() -> dict[str, float]:
    """Return the FLOPs of an epoch, and the times of its products in NumPy and of Adam, in one thread."""
    import keras
    import tensorflow as tf
    from threadpoolctl import threadpool_limits

    from pipeline.config.compose import compose
    from pipeline.environment import use_threads
    from pipeline.training.optimizer import make_optimizer

    use_threads(1)
    batch, sizes, images = 32, (784, 100, 10), 54_000
    steps = images // batch
    rng = np.random.default_rng(0)

    def best(function: Callable[[], object]) -> float:
        function()
        return min(timeit.repeat(function, time.process_time, repeat=5, number=1))

    def random(*shape: int) -> NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    large, pixels = random(2048, 2048), random(64, batch, sizes[0])
    first, second = random(*sizes[:2]), random(*sizes[1:])
    hidden, logits = random(batch, sizes[1]), random(batch, sizes[2])

    def products() -> None:
        """Multiply as in the forward and backward pass; the pixels need no gradient."""
        for step in range(steps):
            image = pixels[step % len(pixels)]
            _ = image @ first, hidden @ second, hidden.T @ logits, logits @ second.T, image.T @ hidden

    optimizer = make_optimizer(compose(REPOSITORY / "conf").train, steps)
    weights = [keras.Variable(first), keras.Variable(second)]
    gradients = [tf.constant(first), tf.constant(second)]
    optimizer.build(weights)

    @tf.function(jit_compile=True)
    def adam() -> tf.Tensor:
        for step in tf.range(steps):
            optimizer.apply([gradient * tf.cast(step, tf.float32) for gradient in gradients], weights)
        return weights[1].value

    with threadpool_limits(1):
        peak = 2 * len(large) ** 3 / best(lambda: large @ large)
        seconds = best(products)
    forward = 2 * images * (sizes[0] * sizes[1] + sizes[1] * sizes[2])
    return {
        # Backward: each product once for its weights, and the last once more for the layer below it.
        "flops": 2 * forward + 2 * images * sizes[1] * sizes[2],
        "steps": steps,
        "peak": peak,
        "products": seconds,
        "adam": best(lambda: adam().numpy()),
    }


# --- settings ----------------------------------------------------------------------------------


def settings_table(files: dict[str, Path]) -> list[str]:
    """Measure a steady epoch of each architecture with one and two threads, with and without XLA."""
    lines = []
    for model, threads, xla in SETTINGS:
        overrides = [f"model={model}", f"train.threads={threads}", f"train.xla={str(xla).lower()}"]
        epoch = json.loads(
            run([*inside("epoch-loop", files[model]), *overrides, "train.epochs=4"], REPOSITORY)
        )
        name = f"{model}, {'60,000' if model == 'mlp' else f'{CNN_IMAGES:,}'} images"
        print(f"{overrides}: {epoch}", file=sys.stderr)
        how = f"{threads} | {'yes' if xla else 'no'}"
        lines.append(f"| {name} | {how} | {epoch['wall']:.2f} s | {epoch['cpu']:.2f} s |")
    return ["| epoch of | threads | XLA | wall | CPU |", "|---|---|---|---|---|", *lines]


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        print(json.dumps(measure_limit()))
