"""Measure time and accuracy on a GPU, and write gpu.json and the tables of docs/gpu.md.

    python -m benchmarks.gpu                        measure in a clone, on a machine with a GPU
    python -m benchmarks.gpu --prepare FOLDER       write the recipes and their raw data, for another machine
    python -m benchmarks.gpu --prepared FOLDER      measure such a folder; needs only JAX, Keras and pydantic

Each step is a separate process, and its result is saved as soon as it is available. If TensorFlow is missing,
nothing is exported to ONNX, as the page says.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np

from benchmarks.common import HERE, REPOSITORY, put_between
from pipeline.artifacts.workspace import RAW_ARRAYS, Workspace
from pipeline.config.params import dump, read_params

KEPT, PAGE = HERE / "gpu.json", REPOSITORY / "docs" / "gpu.md"
RECIPES = ("baseline", "cnn_fast", "cnn_best", "fashion_cnn", "fashion_best")
SEEDS = [0, 1, 2, 3, 4]
BEGIN, END = "<!-- measured by python -m benchmarks.gpu -->\n", "<!-- end -->\n"


@dataclass(frozen=True)
class Step:
    """A process that trains a recipe, with options for `benchmarks.gpu_inside`."""

    name: str
    recipe: str
    asked: dict[str, Any] = field(default_factory=dict)


STEPS = (
    Step("baseline", "baseline", {"seeds": SEEDS, "judged": True}),
    Step("cnn_best, stage", "cnn_best"),
    Step("cnn_fast", "cnn_fast", {"seeds": SEEDS, "judged": True}),
    Step(
        "cnn_fast, any order",
        "cnn_fast",
        {"flags": "--xla_gpu_deterministic_ops=false", "train": {"epochs": 6}},
    ),
    Step(
        "cnn_fast, tuned",
        "cnn_fast",
        {"flags": "--xla_gpu_exclude_nondeterministic_ops=true", "train": {"epochs": 6}},
    ),
    Step("cnn_fast, highest", "cnn_fast", {"products": "highest", "train": {"epochs": 6}}),
    Step("baseline, 4 steps as one", "baseline", {"unrolled": 4}),
    Step("cnn_fast, 2 steps as one", "cnn_fast", {"unrolled": 2, "train": {"epochs": 6}}),
    Step("cnn_best", "cnn_best", {"seeds": SEEDS, "judged": True}),
    Step("fashion_cnn", "fashion_cnn", {"seeds": SEEDS, "judged": True}),
    Step("fashion_best", "fashion_best", {"seeds": SEEDS, "judged": True}),
    Step(
        "cnn_fast, bfloat16",
        "cnn_fast",
        {"seeds": SEEDS, "judged": True, "train": {"precision": "bfloat16"}},
    ),
)
GOALS = {"baseline": 0.05, "cnn_fast": 0.25, "cnn_best": 0.30}  # seconds of a steady epoch
STAGE_GOAL, MEMORY_GOAL = 35, 2000  # seconds, megabytes


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--prepare", type=Path, metavar="FOLDER")
    parser.add_argument("--prepared", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--device", choices=("gpu", "cpu"), default="gpu", help="cpu is for trying the script"
    )
    parser.add_argument("--only", nargs="*", metavar="STEP", help="names of steps, by default all")
    parser.add_argument("--epochs", type=int, help="fewer epochs than in the recipes, to try the script")
    parser.add_argument("--out", type=Path, default=KEPT, metavar="FILE")
    parser.add_argument("--known", action="store_true", help="only write the page from the saved results")
    options = parser.parse_args()
    if options.prepare:
        prepare(options.prepare)
        return
    if not options.known:
        with tempfile.TemporaryDirectory() as folder:
            if not options.prepared:
                prepare(Path(folder) / "prepared")
            measure(options, options.prepared or Path(folder) / "prepared", Path(folder) / "work")
    if options.out == KEPT:
        table = render(json.loads(KEPT.read_text(encoding="utf-8")))
        put_between(BEGIN, END, table, PAGE)
        print(table)


def prepare(folder: Path) -> None:
    """Write the configuration of each recipe for JAX, and the raw data that they need."""
    from pipeline.config.compose import compose
    from pipeline.stages import fetch

    folder.mkdir(parents=True)
    for name in RECIPES:
        config = compose(REPOSITORY / "conf", [f"experiment={name}", "train.backend=jax", "train.device=gpu"])
        (folder / f"{name}.yaml").write_text(dump(config), encoding="utf-8")
        raw = folder / f"{config.data.name}.npz"
        if not raw.exists():
            with tempfile.TemporaryDirectory() as place:
                workspace = Workspace(Path(place))
                fetch.run(config, workspace)
                arrays = {name: np.load(workspace.raw / f"{name}.npy") for name in RAW_ARRAYS}
                np.savez_compressed(raw, **arrays)


def measure(options: argparse.Namespace, prepared: Path, work: Path) -> None:
    """Run the steps, one after the other."""
    kept: dict[str, Any] = {"machine": machine(), "steps": {}}
    if options.out.exists() and options.only:
        kept = json.loads(options.out.read_text(encoding="utf-8"))
    for step in STEPS:
        if options.only and step.name not in options.only:
            continue
        recipe = laid_out(step.recipe, prepared, work)
        asked = {"recipe": str(recipe), "began": time.time(), **step.asked}
        asked["train"] = {**asked.get("train", {}), "device": options.device}
        if options.epochs:
            asked["train"]["epochs"] = options.epochs
        command = [sys.executable, "-m", "benchmarks.gpu_inside", json.dumps(asked)]
        with most_memory(options.device == "gpu") as memory:
            done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"{step.name}: failed with exit code {done.returncode}", flush=True)
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        kept["steps"][step.name] = {**found, "megabytes": memory[0], "whole": time.time() - asked["began"]}
        options.out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        print(summary(step.name, kept["steps"][step.name]), flush=True)


def machine() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute."""
    return {"python": sys.version.split()[0], **{name: version(name) for name in ("keras", "jax", "numpy")}}


def laid_out(name: str, prepared: Path, work: Path) -> Path:
    """Return a workspace with the configuration of a recipe and its processed data."""
    from pipeline.stages import preprocess

    workspace = Workspace(work / name)
    if not workspace.dataset.exists():
        workspace.raw.mkdir(parents=True)
        workspace.params.write_bytes((prepared / f"{name}.yaml").read_bytes())
        config = read_params(workspace.params)
        with np.load(prepared / f"{config.data.name}.npz") as arrays:
            for array in RAW_ARRAYS:
                np.save(workspace.raw / f"{array}.npy", arrays[array])
        preprocess.run(config, workspace)
    return workspace.root


@contextmanager
def most_memory(card: bool) -> Iterator[list[int]]:
    """Watch the memory of the GPU with nvidia-smi; the first item of the list is its peak in megabytes."""
    most, over = [0], threading.Event()

    def look() -> None:
        command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while not over.wait(0.5):
            done = subprocess.run(command, capture_output=True, text=True)
            most[0] = max([most[0], *(int(line) for line in done.stdout.split() if line.isdigit())])

    watcher = threading.Thread(target=look)
    if card:
        watcher.start()
    yield most
    over.set()
    if card:
        watcher.join()


def steady(found: dict[str, Any]) -> float:
    """Return the median time of an epoch in seconds, without the first two epochs of each seed."""
    return median(second for epochs in found["epochs"] for second in epochs[min(2, len(epochs) - 1) :])


def summary(name: str, found: dict[str, Any]) -> str:
    """Return a line about a step, for the log."""
    first = found["epochs"][0][0]
    line = f"{name}: epoch {steady(found):.4f} s, first {first:.1f} s, stage {found['stage']:.1f} s"
    line += f", imports {found['imports']:.1f} s, {found['megabytes']} MB, whole {found['whole']:.0f} s"
    for key in ("validation", "test", "test_tta"):
        if found[key] and None not in found[key]:
            line += f", {key} {percent(found[key])}"
    return f"{line}, weights {found['weights'][0][:8]}"


def percent(values: list[float]) -> str:
    """Return mean and standard deviation in percent."""
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.2f}{spread} %"


def render(kept: dict[str, Any]) -> str:
    """Render the tables of docs/gpu.md."""
    steps: dict[str, Any] = kept["steps"]
    card = next(iter(steps.values()))["device"]
    packages = ", ".join(f"{name} {number}" for name, number in kept["machine"].items())
    lines = [f"On one {card} ({packages}):", "", "| what | measured | goal |", "|---|---|---|"]
    for name, goal in GOALS.items():
        if name in steps:
            lines.append(f"| steady epoch of `{name}` | {steady(steps[name]):.3f} s | ≤ {goal:.2f} s |")
    if stage := steps.get("cnn_best, stage"):
        lines += [
            "| training stage of `cnn_best` with imports and compilation, without the export to ONNX "
            f"| {stage['stage']:.1f} s | ≤ {STAGE_GOAL} s |",
            f"| peak memory of the GPU meanwhile | {stage['megabytes']:,} MB | ≤ {MEMORY_GOAL:,} MB |",
        ]
        if again := steps.get("cnn_best"):
            same = "the same" if stage["weights"][0] == again["weights"][0] else "different"
            lines.append(f"| weights of `cnn_best` in two processes | {same} | the same |")
    for name, recipe, what in (
        ("cnn_fast, any order", "cnn_fast", "with `--xla_gpu_deterministic_ops=false`"),
        ("cnn_fast, tuned", "cnn_fast", "with `--xla_gpu_exclude_nondeterministic_ops=true` instead"),
        ("cnn_fast, highest", "cnn_fast", "with all products in full float32"),
        ("cnn_fast, bfloat16", "cnn_fast", "in bfloat16"),
        ("cnn_fast, 2 steps as one", "cnn_fast", "with two steps compiled as one"),
        ("baseline, 4 steps as one", "baseline", "with four steps compiled as one"),
    ):
        if name in steps:
            lines.append(f"| steady epoch of `{recipe}` {what} | {steady(steps[name]):.3f} s | |")
    lines += ["", "| recipe | seeds | test | test, TTA | a training |", "|---|---|---|---|---|"]
    lines += [
        f"| `{name}` | {len(found['test'])} | {percent(found['test'])} | {percent(found['test_tta'])} "
        f"| {median(sum(epochs) for epochs in found['epochs'][1:] or found['epochs']):.1f} s |"
        for name, found in steps.items()
        if found["test"]
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
