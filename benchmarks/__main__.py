"""Time the pipeline and what it is compared with, as whole processes in turn, and write medians and ratios.

    python -m benchmarks [--repeats 5] [--only baseline|size]

`baseline` measures the baseline, and `size` the stages on ten times the data. Machines are shared and noisy,
so only ratios between commands that ran side by side are meaningful. Writes results.json and results.md next
to this file, unless only a part was measured.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import (
    HERE,
    REPOSITORY,
    Ratio,
    Run,
    inside,
    measure,
    note,
    prepare_repository,
    render,
    run,
    save,
    save_npz,
    summarise,
)
from pipeline.artifacts.workspace import RAW_ARRAYS, Workspace, sha256
from pipeline.config.compose import compose
from pipeline.config.params import dump

TRUE_PIPELINE = "stages:\n" + "".join(
    f"  stage{number}:\n    cmd: 'true'\n    deps: [input{number}]\n" for number in range(1, 5)
)


RATIOS = (
    Ratio("a steady epoch of the baseline, against `model.fit`", "epoch, loop", "epoch, model.fit"),
    Ratio(
        "train: data, compilation, ten epochs, validation and tracking, against the script's fit",
        "train, inside",
        "script, fit",
    ),
    Ratio("`dvc repro`, everything but the raw data cold, against the script", "repro, cold", "script"),
    Ratio(
        "`dvc repro` with nothing to do, against four stages of `true` with nothing to do",
        "repro, no-op",
        "true stages, no-op",
    ),
    Ratio("preprocess: ten times MNIST against MNIST", "preprocess, tenfold", "preprocess"),
    Ratio("train, one epoch: ten times MNIST against MNIST", "train one epoch, tenfold", "train one epoch"),
)
TIMES = 10


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=("baseline", "size"))
    options = parser.parse_args()
    runs: dict[str, list[Run]] = {}
    with tempfile.TemporaryDirectory() as folder:
        fetched = prepare_repository(Path(folder) / "fetched")
        if options.only != "size":
            runs |= measure_baseline(Path(folder), fetched, options.repeats)
        if options.only != "baseline":
            runs |= measure_size(Path(folder), fetched, options.repeats)
    results = summarise(runs, options.repeats, RATIOS)
    table = render(results)
    if options.only:
        print(table)
    else:
        save("results", results, table)


def measure_baseline(folder: Path, fetched: Path, repeats: int) -> dict[str, list[Run]]:
    """Run the baseline, its stages and what they are compared with `repeats` times, in turn."""
    stages = prepare_true_stages(folder / "true")
    npz = save_npz(folder / "mnist.npz", fetched)
    runs: dict[str, list[Run]] = {}
    for _ in range(repeats):
        workspace = folder / "workspace"
        shutil.copytree(fetched, workspace, symlinks=True)
        for name, command, place in (
            ("script", [sys.executable, str(HERE / "seed_script.py"), str(npz)], folder),
            ("epoch, model.fit", inside("epoch-keras", npz), REPOSITORY),
            ("epoch, loop", inside("epoch-loop", npz), REPOSITORY),
            ("repro, cold", ["dvc", "repro"], workspace),
            # These take about a second, of which a tenth is noise, so they run three times.
            *3
            * (
                ("repro, no-op", ["dvc", "repro"], workspace),
                ("true stages, no-op", ["dvc", "repro"], stages),
            ),
            ("train, inside", inside("train", workspace), REPOSITORY),
        ):
            printed = measure(runs, name, command, place)
            if name == "script":
                fit, whole = json.loads(printed)["seconds"]["fit"], runs[name][-1]
                # The script reports only the wall time of its parts. Nearly all of its CPU time is the fit.
                note(runs, "script, fit", Run(fit, whole.cpu * fit / whole.wall))
        shutil.rmtree(workspace)
    return runs


def measure_size(folder: Path, fetched: Path, repeats: int) -> dict[str, list[Run]]:
    """Run preprocess and one epoch of train `repeats` times, on MNIST and on ten times MNIST, in turn."""
    places = {"": folder / "once", ", tenfold": folder / "tenfold"}
    for place, times in zip(places.values(), (1, TIMES), strict=True):
        prepare_multiple(place, Workspace(fetched), times)
    runs: dict[str, list[Run]] = {}
    for _ in range(repeats):
        for stage, named in (("preprocess", "preprocess"), ("train", "train one epoch")):
            for suffix, place in places.items():
                measure(runs, named + suffix, inside(stage, place), REPOSITORY)
    return runs


def prepare_multiple(place: Path, fetched: Workspace, times: int) -> None:
    """Make a workspace whose raw data are `times` copies of the fetched data, each with different noise."""
    workspace = Workspace(place)
    workspace.raw.mkdir(parents=True)
    shutil.copy2(fetched.dvc_yaml, workspace.dvc_yaml)
    rng = np.random.default_rng(0)
    for name in RAW_ARRAYS:
        source = np.load(fetched.raw / f"{name}.npy", mmap_mode="r")
        shape = (times * len(source), *source.shape[1:])
        target = np.lib.format.open_memmap(workspace.raw / f"{name}.npy", "w+", source.dtype, shape)
        for start in range(0, len(target), len(source)):
            target[start : start + len(source)] = source
            if name.endswith("images"):
                # Sums above 255 wrap around, which does not matter for noise.
                target[start : start + len(source)] += rng.integers(0, 8, source.shape, np.uint8)
        target.flush()
    digests = [f"data.sha256.{name}='{sha256(workspace.raw / f'{name}.npy')}'" for name in RAW_ARRAYS]
    config = compose(REPOSITORY / "conf", ["train.epochs=1", *digests])
    workspace.params.write_text(dump(config), encoding="utf-8")


def prepare_true_stages(place: Path) -> Path:
    """Make a DVC pipeline whose stages do nothing, which shows DVC's own cost."""
    place.mkdir()
    (place / "dvc.yaml").write_text(TRUE_PIPELINE, encoding="utf-8")
    for number in range(1, 5):
        (place / f"input{number}").write_text(str(number), encoding="utf-8")
    run(["git", "init", "-q"], place)
    run(["dvc", "init", "-q"], place)
    run(["dvc", "config", "core.analytics", "false"], place)
    run(["dvc", "repro"], place)
    return place


if __name__ == "__main__":
    main()
