"""Time whole processes, the pipeline and its peers by turns, and write medians and ratios.

    python -m benchmarks [--repeats 5]

Machines are shared and noisy: only ratios between commands that ran side by side mean something.
Writes results.json and results.md beside this file.
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
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
TRUE_PIPELINE = "stages:\n" + "".join(
    f"  stage{number}:\n    cmd: 'true'\n    deps: [input{number}]\n" for number in range(1, 5)
)


@dataclass(frozen=True)
class Run:
    """One process tree: seconds by the clock and seconds of processor."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Ratio:
    """`subject` against `peer`, by wall and CPU time."""

    what: str
    subject: str
    peer: str


RATIOS = (
    Ratio("a steady epoch of the plain design, against `model.fit`", "epoch, loop", "epoch, model.fit"),
    Ratio(
        "train: data, compilation, ten epochs, validation and tracking, against the script's fit",
        "train, inside",
        "script, fit",
    ),
    Ratio("`dvc repro`, everything but the raw data cold, against the script", "repro, cold", "script"),
    Ratio("`dvc repro` with nothing to do, against the script", "repro, no-op", "script"),
    Ratio(
        "`dvc repro` with nothing to do, against four stages of `true` with nothing to do",
        "repro, no-op",
        "true stages, no-op",
    ),
)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        runs = measure(Path(folder), repeats)
    results = summarise(runs, repeats)
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    table = render(results)
    (HERE / "results.md").write_text(table, encoding="utf-8")
    print(table)


def measure(folder: Path, repeats: int) -> dict[str, list[Run]]:
    """Run each command `repeats` times, by turns."""
    fetched, stages = prepare_repository(folder / "fetched"), prepare_true_stages(folder / "true")
    npz = folder / "mnist.npz"
    raw = {path.stem: np.load(path) for path in (fetched / "data" / "raw").glob("*.npy")}
    np.savez(
        npz,
        x_train=raw["train_images"],
        y_train=raw["train_labels"].astype(np.uint8),
        x_test=raw["test_images"],
        y_test=raw["test_labels"].astype(np.uint8),
    )
    runs: dict[str, list[Run]] = {}
    for repeat in range(repeats):
        workspace = folder / "workspace"
        shutil.copytree(fetched, workspace, symlinks=True)
        for name, command, place in (
            ("script", [sys.executable, str(HERE / "seed_script.py"), str(npz)], folder),
            ("epoch, model.fit", inside("epoch-keras", npz), REPOSITORY),
            ("epoch, loop", inside("epoch-loop", npz), REPOSITORY),
            ("repro, cold", ["dvc", "repro"], workspace),
            ("repro, no-op", ["dvc", "repro"], workspace),
            ("true stages, no-op", ["dvc", "repro"], stages),
            ("train, inside", inside("stage-train", workspace), REPOSITORY),
        ):
            whole, printed = timed(command, place)
            runs.setdefault(name, []).append(
                Run(**json.loads(printed)) if "benchmarks.inside" in command else whole
            )
            if name == "script":
                fit = json.loads(printed)["seconds"]["fit"]
                # The script tells the wall time of its parts only; its fit is nearly all of its CPU time.
                runs.setdefault("script, fit", []).append(Run(fit, whole.cpu * fit / whole.wall))
            print(f"{repeat + 1} of {repeats}: {name}: {runs[name][-1].wall:.2f} s", flush=True)
        shutil.rmtree(workspace)
    return runs


def prepare_repository(place: Path) -> Path:
    """A copy of this repository as it stands, its cache empty but for the raw data."""
    listed = run(["git", "ls-files", "-co", "--exclude-standard", "-z"], REPOSITORY).split("\0")
    for name in filter(None, listed):
        if (REPOSITORY / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, place / name)
    run(["git", "init", "-q"], place)
    run(["dvc", "repro", "fetch"], place)
    return place


def prepare_true_stages(place: Path) -> Path:
    """A DVC pipeline that only has DVC's own cost."""
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
    """A command that tells the seconds inside a process, without its imports."""
    return [sys.executable, "-m", "benchmarks.inside", what, str(place)]


def timed(command: list[str], place: Path) -> tuple[Run, str]:
    """One run of `command` and its children in `place`, and what it printed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    printed = run(command, place)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Run(wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime), printed


def run(command: list[str], place: Path) -> str:
    """What `command` prints, with this environment's programs; its failure ends the benchmark."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "DVC"))
    }
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def summarise(runs: dict[str, list[Run]], repeats: int) -> dict[str, object]:
    """Medians of each command, and medians of the ratios of runs that stood side by side."""
    return {
        "machine": {"processors": os.cpu_count(), "python": platform.python_version()},
        "repeats": repeats,
        "seconds": {
            name: {"wall": median(run.wall for run in of), "cpu": median(run.cpu for run in of)}
            for name, of in runs.items()
        },
        "ratios": {
            ratio.what: {
                kind: median(
                    getattr(subject, kind) / getattr(peer, kind)
                    for subject, peer in zip(runs[ratio.subject], runs[ratio.peer], strict=True)
                )
                for kind in ("wall", "cpu")
            }
            for ratio in RATIOS
        },
    }


def render(results: dict) -> str:
    """The results as Markdown."""
    lines = [
        f"Medians of {results['repeats']} runs by turns on {results['machine']['processors']} processors; "
        "written by `make bench`.",
        "",
        "| what | wall | CPU |",
        "|---|---|---|",
        *(f"| {name} | {of['wall']:.2f} s | {of['cpu']:.2f} s |" for name, of in results["seconds"].items()),
        "",
        "| ratio | wall | CPU |",
        "|---|---|---|",
        *(f"| {what} | {of['wall']:.2f} | {of['cpu']:.2f} |" for what, of in results["ratios"].items()),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
