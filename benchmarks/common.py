"""What the benchmarks share: a copy of the repository, timed commands, tables of medians and ratios."""

import json
import os
import platform
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

from pipeline.processes.system import variables_for_dvc

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent


@dataclass(frozen=True)
class Run:
    """A process tree: wall and CPU time in seconds, its largest process in megabytes; None if unknown."""

    wall: float
    cpu: float | None = None
    peak: float | None = None


@dataclass(frozen=True)
class Ratio:
    """A comparison of `subject` with `peer` by wall time, CPU time and memory."""

    what: str
    subject: str
    peer: str


def prepare_repository(place: Path, settings: str = "") -> Path:
    """Copy the working tree of this repository to `place`, with only the raw data in its cache.

    Args:
        place: The new folder.
        settings: The content of its conf/local/default.yaml, by which it differs from the default.
    """
    copy_working_tree(place)
    if settings:
        set_local(place, settings)
    run(["git", "init", "-q"], place)
    run(["dvc", "repro", "fetch"], place)
    return place


def copy_working_tree(place: Path) -> None:
    """Copy the files of this repository that git does not ignore to `place`."""
    listed = run(["git", "ls-files", "-co", "--exclude-standard", "-z"], REPOSITORY).split("\0")
    for name in filter(None, listed):
        if (REPOSITORY / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, place / name)


def set_local(place: Path, settings: str) -> None:
    """Write the personal settings of a clone, conf/local/default.yaml."""
    file = place / "conf" / "local" / "default.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"# @package _global_\n{settings}", encoding="utf-8")


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


def inside(what: str, place: Path | str) -> list[str]:
    """Return a command that measures the seconds inside a process, without its imports."""
    return [sys.executable, "-m", "benchmarks.inside", what, str(place)]


def measure(runs: dict[str, list[Run]], name: str, command: list[str], place: Path) -> str:
    """Run a command, note its times (those that it prints if it is from `inside`), and return its output."""
    whole, printed = timed(command, place)
    note(runs, name, Run(**json.loads(printed)) if "benchmarks.inside" in command else whole)
    return printed


def note(runs: dict[str, list[Run]], name: str, measured: Run) -> None:
    """Add a run of the command `name` to `runs`, and print its time."""
    runs.setdefault(name, []).append(measured)
    print(f"{name}, {len(runs[name])}: {measured.wall:.2f} s", flush=True)


def timed(command: list[str], place: Path, memory: bool = False) -> tuple[Run, str]:
    """Run a command in `place`, and return its times, with its children, and its output. If it fails, exit.

    With `memory`, also return its memory, of which Linux never reports less than that of the benchmark.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, cwd=place, env=environment(), stdout=output, stderr=errors)
        # Unlike the subprocess module, wait4 reports what this process tree alone used.
        _, status, usage = os.wait4(process.pid, 0)
        wall, process.returncode = time.perf_counter() - start, os.waitstatus_to_exitcode(status)
        for file in (output, errors):
            file.seek(0)
        printed, complaints = output.read(), errors.read()
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{printed}\n{complaints}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024 if memory else None), printed


def run(command: list[str], place: Path) -> str:
    """Run a command in `place` and return its output. If it fails, exit."""
    return timed(command, place)[1]


def environment() -> dict[str, str]:
    """Return the variables of commands, which use this Python, and the package and stores of their folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "DVC"))}
    return kept | variables_for_dvc() | {"PYTHONPATH": "src"}


def summarise(runs: dict[str, list[Run]], repeats: int, ratios: Sequence[Ratio]) -> dict[str, object]:
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


def save(name: str, results: dict[str, object], table: str) -> None:
    """Write NAME.json and NAME.md next to this file, and print the table."""
    (HERE / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (HERE / f"{name}.md").write_text(table, encoding="utf-8")
    print(table)


def put_between(begin: str, end: str, text: str, page: Path) -> None:
    """Replace what is between two marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    page.write_text(f"{before}{begin}{text}{end}{rest.partition(end)[2]}", encoding="utf-8")
