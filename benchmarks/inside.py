"""Measure the seconds inside a process, without its imports: `python -m benchmarks.inside WHAT PLACE`.

    epoch-keras DATA.npz                 a steady epoch of the baseline with Keras's `model.fit`
    epoch-loop DATA.npz [OVERRIDE ...]   a steady epoch of the pipeline's loop, by default of the baseline
    preprocess WORKSPACE                 the stage as `dvc repro` runs it, after its imports
    train WORKSPACE                      the same: data, compilation, epochs, validation, files, tracking
    fetch DATA                           the stage with `data=DATA`, in the clone in this directory
    pillow FOLDER                        a bare loop of Pillow over folders of pictures

Prints one JSON line, {"wall": seconds, "cpu": seconds}, and except for an epoch also "peak", the memory in
megabytes.
"""

import importlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from pipeline.environment import prepare_environment

prepare_environment(Path(tempfile.gettempdir()))

Clock = tuple[float, float]


def now() -> Clock:
    """Return the wall time and the CPU time."""
    return time.perf_counter(), time.process_time()


def steady(marks: list[Clock]) -> dict[str, float]:
    """Return the median epoch without the first two, which compile and warm up."""
    wall, cpu = zip(*marks, strict=True)
    return {
        "wall": median(after - before for before, after in list(pairwise(wall))[2:]),
        "cpu": median(after - before for before, after in list(pairwise(cpu))[2:]),
    }


def epoch_keras(path: str) -> dict[str, float]:
    """Measure the script's own model and fit."""
    import keras

    with np.load(path, allow_pickle=False) as arrays:
        images, labels = arrays["x_train"].reshape(-1, 784) / 255, arrays["y_train"]
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Input((784,)),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(10, activation="sigmoid"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    marks = [now()]
    mark = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: marks.append(now()))
    model.fit(images, labels, epochs=5, validation_split=0.1, verbose=0, callbacks=[mark])
    return steady(marks)


def epoch_loop(path: str, *overrides: str) -> dict[str, float]:
    """Measure the pipeline's loop on the same model, or on another one with `overrides`."""
    from pipeline.config.compose import compose
    from pipeline.environment import import_keras, use

    config = compose(Path(__file__).parents[1] / "conf", ["train.xla=true", *overrides])
    import_keras(config.train.target)
    import keras

    from pipeline.models import build
    from pipeline.training.loop import fit

    with np.load(path, allow_pickle=False) as arrays:
        images, labels = arrays["x_train"].reshape(-1, 784), arrays["y_train"].astype(np.int32)
    use(config.train.target)
    keras.utils.set_random_seed(0)
    network = build(config.model, (28, 28), 10)
    marks = [now()]
    split = len(labels) * 9 // 10
    fit(
        network,
        (images[:split], labels[:split]),
        (images[split:], labels[split:]),
        config.train,
        image_shape=(28, 28),
        seed=0,
        on_epoch=lambda epoch: marks.append(now()),
    )
    return steady(marks)


def stage(name: str, place: str) -> dict[str, float]:
    """Measure the stage `name` in the workspace `place`."""
    importlib.import_module(f"pipeline.stages.{name}")
    from pipeline.artifacts.workspace import Workspace
    from pipeline.stages.__main__ import run

    return whole(partial(run, name, Workspace(Path(place))))


def fetch(data: str) -> dict[str, float]:
    """Measure the stage fetch with `data=DATA` in this directory, with the processes that decode pictures."""
    from pipeline.artifacts.workspace import Workspace
    from pipeline.config.compose import compose
    from pipeline.stages.fetch import run

    found = whole(partial(run, compose(Path("conf"), [f"data={data}"]), Workspace(Path.cwd())))
    of_children = resource.getrusage(resource.RUSAGE_CHILDREN)
    found["cpu"] += of_children.ru_utime + of_children.ru_stime
    return found | {"peak": max(found["peak"], of_children.ru_maxrss / 1024)}


def pillow(folder: str) -> dict[str, float]:
    """Measure a bare loop of Pillow over the grey pictures in the folders below `folder`."""
    from PIL import Image

    def read() -> None:
        paths = [path for below in sorted(Path(folder).iterdir()) for path in sorted(below.iterdir())]
        np.stack([np.asarray(Image.open(path).convert("L")) for path in paths])

    return whole(read)


def whole(function: Callable[[], object]) -> dict[str, float]:
    """Call a function without showing its output, and measure it."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        wall, cpu = now()
        function()
        ended = now()
    # Not ru_maxrss, which starts with the value of the parent process.
    [peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    return {"wall": ended[0] - wall, "cpu": ended[1] - cpu, "peak": int(peak.split()[1]) / 1024}


if __name__ == "__main__":
    functions = {
        "epoch-keras": epoch_keras,
        "epoch-loop": epoch_loop,
        "preprocess": partial(stage, "preprocess"),
        "train": partial(stage, "train"),
        "fetch": fetch,
        "pillow": pillow,
    }
    print(json.dumps(functions[sys.argv[1]](*sys.argv[2:])))
