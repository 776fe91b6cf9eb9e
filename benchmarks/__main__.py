"""Time the pipeline and what it is compared with, as whole processes in turn, and write medians and ratios.

    python -m benchmarks [--repeats 5] [--only baseline|size]

`baseline` measures the baseline, and `size` the stages on ten times the data. Machines are shared and noisy,
so only ratios between commands that ran side by side are meaningful. Writes results.json and results.md next
to this file, unless only a part was measured.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from pipeline.artifacts.workspace import RAW_ARRAYS, Workspace, sha256
from pipeline.config.compose import compose
from pipeline.config.params import dump

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
TRUE_PIPELINE = "stages:\n" + "".join(
    f"  stage{number}:\n    cmd: 'true'\n    deps: [input{number}]\n" for number in range(1, 5)
)


@dataclass(frozen=True)
class Run:
    """A process tree: wall time and CPU time in seconds, and peak memory in megabytes; None if unknown."""

    wall: float
    cpu: float | None = None
    peak: float | None = None


@dataclass(frozen=True)
class Ratio:
    """A comparison of `subject` with `peer` by wall time, CPU time and memory."""

    what: str
    subject: str
    peer: str


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
    results = summarise(runs, options.repeats)
    table = render(results)
    if not options.only:
        (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        (HERE / "results.md").write_text(table, encoding="utf-8")
    print(table)


def measure_baseline(folder: Path, fetched: Path, repeats: int) -> dict[str, list[Run]]:
    """Run the baseline, its stages and what they are compared with `repeats` times, in turn."""
    stages = prepare_true_stages(folder / "true")
    npz = save_npz(folder / "mnist.npz", fetched)
    runs: dict[str, list[Run]] = {}
    for repeat in range(repeats):
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
            whole, printed = timed(command, place)
            runs.setdefault(name, []).append(
                Run(**json.loads(printed)) if "benchmarks.inside" in command else whole
            )
            if name == "script":
                fit = json.loads(printed)["seconds"]["fit"]
                # The script reports only the wall time of its parts. Nearly all of its CPU time is the fit.
                runs.setdefault("script, fit", []).append(Run(fit, whole.cpu * fit / whole.wall))
            print(f"{repeat + 1} of {repeats}: {name}: {runs[name][-1].wall:.2f} s", flush=True)
        shutil.rmtree(workspace)
    return runs


def measure_size(folder: Path, fetched: Path, repeats: int) -> dict[str, list[Run]]:
    """Run preprocess and one epoch of train `repeats` times, on MNIST and on ten times MNIST, in turn."""
    places = {"": folder / "once", ", tenfold": folder / "tenfold"}
    for place, times in zip(places.values(), (1, TIMES), strict=True):
        prepare_multiple(place, Workspace(fetched), times)
    runs: dict[str, list[Run]] = {}
    for repeat in range(repeats):
        for stage, named in (("preprocess", "preprocess"), ("train", "train one epoch")):
            for suffix, place in places.items():
                name = named + suffix
                printed = run(inside(stage, place), REPOSITORY)
                runs.setdefault(name, []).append(Run(**json.loads(printed)))
                print(f"{repeat + 1} of {repeats}: {name}: {runs[name][-1].wall:.2f} s", flush=True)
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


def prepare_repository(place: Path) -> Path:
    """Copy the working tree of this repository to `place`, with only the raw data in its cache."""
    listed = run(["git", "ls-files", "-co", "--exclude-standard", "-z"], REPOSITORY).split("\0")
    for name in filter(None, listed):
        if (REPOSITORY / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, place / name)
    run(["git", "init", "-q"], place)
    run(["dvc", "repro", "fetch"], place)
    return place


def save_npz(npz: Path, fetched: Path) -> Path:
    """Write the raw data in the form that the script reads."""
    raw = {path.stem: np.load(path) for path in (fetched / "data" / "raw").glob("*.npy")}
    np.savez(
        npz,
        x_train=raw["train_images"],
        y_train=raw["train_labels"].astype(np.uint8),
        x_test=raw["test_images"],
        y_test=raw["test_labels"].astype(np.uint8),
    )
    return npz


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


def inside(what: str, place: Path) -> list[str]:
    """Return a command that measures the seconds inside a process, without its imports."""
    return [sys.executable, "-m", "benchmarks.inside", what, str(place)]


def timed(command: list[str], place: Path) -> tuple[Run, str]:
    """Time `command` and its children in `place`; return the times and the output."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    printed = run(command, place)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Run(wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime), printed


def run(command: list[str], place: Path) -> str:
    """Run `command` with this environment's programs and return its output; end the benchmark if it fails."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "DVC"))
    }
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def summarise(
    runs: dict[str, list[Run]], repeats: int, ratios: Sequence[Ratio] = RATIOS
) -> dict[str, object]:
    """Return the medians of each command, and the medians of the ratios of runs that were side by side."""

    def kinds(name: str) -> list[str]:
        return [kind for kind in ("wall", "cpu", "peak") if getattr(runs[name][0], kind) is not None]

    return {
        "machine": {"processors": os.cpu_count(), "python": platform.python_version()},
        "repeats": repeats,
        "measured": {
            name: {kind: median(getattr(run, kind) for run in of) for kind in kinds(name)}
            for name, of in runs.items()
        },
        "ratios": {
            ratio.what: {
                kind: median(
                    getattr(subject, kind) / getattr(peer, kind)
                    for subject, peer in zip(runs[ratio.subject], runs[ratio.peer], strict=True)
                )
                for kind in kinds(ratio.subject)
                if kind in kinds(ratio.peer)
            }
            for ratio in ratios
            if ratio.subject in runs
        },
    }


def render(results: dict) -> str:
    """Render the results as Markdown."""
    processors = results["machine"]["processors"]
    return "\n".join(
        [
            f"Medians of {results['repeats']} runs in turn on {processors} processors; written by "
            "`make bench`.",
            "",
            *_table("what", results["measured"], "{:.2f} s", "{:.2f} s", "{:.0f} MB"),
            "",
            *_table("ratio", results["ratios"], "{:.3g}", "{:.3g}", "{:.3g}"),
            "",
        ]
    )


def _table(title: str, rows: dict[str, dict[str, float]], *forms: str) -> list[str]:
    """Return the lines of a table, with the columns for which at least one row has a value."""
    columns = ("wall", "CPU", "memory")[: max(map(len, rows.values()))]
    lines = [[title, *columns], ["---"] * (1 + len(columns))]
    for name, values in rows.items():
        cells = [form.format(value) for form, value in zip(forms, values.values(), strict=False)]
        lines.append([name, *cells, *[""] * (len(columns) - len(cells))])
    return [f"| {' | '.join(line)} |" for line in lines]


if __name__ == "__main__":
    main()
