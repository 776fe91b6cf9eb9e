"""Compare sweeps of the baseline with plain scripts and with DVC's own queue, side by side.

    python -m benchmarks.sweeps [--repeats 3] [--trials 16] [--known 200]

Every repeat takes about fifteen minutes, most of it for the scripts. Writes sweeps.json and sweeps.md next to
this file.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from benchmarks.common import (
    HERE,
    Ratio,
    Run,
    environment,
    note,
    prepare_repository,
    render,
    run,
    save,
    save_npz,
    summarise,
    timed,
)

RATES = (0.0003, 0.001, 0.003, 0.01)
RATIOS = (
    Ratio("the sweep against one script after the other", "sweep, 2 workers", "scripts"),
    Ratio("the sweep against `dvc exp run --queue` with two workers", "sweep, 2 workers", "queue, 2 workers"),
    Ratio("two workers against one", "sweep, 2 workers", "sweep, 1 worker"),
    Ratio("two scripts at once against one by one: the machine's own", "2 scripts at once", "2 scripts"),
    Ratio("the sweep again, all known, against the first time", "sweep, known", "sweep, 2 workers"),
)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweeps", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--known", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fetched = prepare_repository(Path(folder) / "fetched")
        many = Path(folder) / "many"
        known_trials = measure_known(many, fetched, options.known) if options.known else {}
        for repeat, runs in enumerate(measure(Path(folder), fetched, options.repeats, options.trials), 1):
            # If the benchmark is interrupted, the previous repeats are saved.
            write(runs | known_trials, repeat, options.trials)


def write(runs: dict[str, list[Run]], repeats: int, trials: int) -> None:
    """Write the results so far."""
    results = summarise(runs, repeats, RATIOS)
    results["trials"] = trials
    save("sweeps", results, f"{trials} trials of the baseline. {render(results)}")


def measure(folder: Path, fetched: Path, repeats: int, trials: int) -> Iterator[dict[str, list[Run]]]:
    """Run the trials in each way `repeats` times, in turn; yield all runs after each repeat.

    Only the raw data are cached at the start: each way gets its own copy of the repository.
    """
    script = [sys.executable, str(HERE / "seed_script.py"), str(save_npz(folder / "mnist.npz", fetched))]
    seeds = range(trials // len(RATES))
    rates = ",".join(map(str, RATES))
    sweep = [sys.executable, "-m", "pipeline", "-m", f"train.learning_rate={rates}"]
    sweep.append(f"seed={','.join(map(str, seeds))}")
    runs: dict[str, list[Run]] = {}

    def note_wall(name: str, measured: Run) -> None:
        # The CPU time is unknown, because forks and the queue's workers are not children of this process.
        note(runs, name, Run(measured.wall))

    # Warm up, since otherwise the first one would have to load files from disk.
    timed(script, folder)
    for _ in range(repeats):
        both, one, queue = (folder / name for name in ("both", "one", "queue"))
        for place in (both, one, queue):
            shutil.copytree(fetched, place, symlinks=True)
        note_wall("sweep, 2 workers", timed([*sweep, "hydra.launcher.n_jobs=2"], both)[0])
        note_wall("sweep, known", known(sweep, both, trials))
        note_wall("sweep, 1 worker", timed([*sweep, "hydra.launcher.n_jobs=1"], one)[0])
        note_wall("queue, 2 workers", queued(queue, seeds))
        note_wall("2 scripts at once", at_once(script, folder))
        scripts = [timed([*script, "--seed", str(seed)], folder)[0] for _, seed in product(RATES, seeds)]
        note_wall("2 scripts", Run(sum(each.wall for each in scripts[:2])))
        note_wall("scripts", Run(sum(each.wall for each in scripts)))
        for place in (both, one, queue):
            shutil.rmtree(place)
        yield runs


def at_once(command: list[str], place: Path) -> Run:
    """Run a command twice at the same time; two workers can't gain more than this does."""
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: run(command, place), range(2)))
    return Run(time.perf_counter() - start)


def known(sweep: list[str], place: Path, trials: int) -> Run:
    """Run the sweep again; every trial must be known."""
    measured, printed = timed(sweep, place)
    if f"{trials:,} trials: {trials} known, 0 to run" not in printed:
        sys.exit(f"error: when the sweep ran again, not all of its trials were known:\n{printed}")
    return measured


def queued(place: Path, seeds: range) -> Run:
    """Run the same trials with DVC's own queue and two of its workers."""
    run(["git", "add", "--all"], place)
    run(["git", "-c", "user.name=b", "-c", "user.email=b@b", "commit", "--quiet", "--message=b"], place)
    start = time.perf_counter()
    for rate, seed in product(RATES, seeds):
        run(
            ["dvc", "exp", "run", "--queue", "-S", f"train.learning_rate={rate}", "-S", f"seed={seed}"], place
        )
    run(["dvc", "queue", "start", "--jobs", "2"], place)
    while True:
        status = run(["dvc", "queue", "status"], place)
        if not re.search(r"Queued|Running", status):
            break
        time.sleep(1)
    wall = time.perf_counter() - start
    if status.count("Success") != len(RATES) * len(seeds):
        sys.exit(f"error: not all experiments of DVC's queue succeeded:\n{status}")
    return Run(wall)


def measure_known(place: Path, fetched: Path, trials: int) -> dict[str, list[Run]]:
    """Time a sweep of many small trials that are all known, until its plan is printed and until its end."""
    shutil.copytree(fetched, place, symlinks=True)
    sweep = [sys.executable, "-m", "pipeline", "-m", "experiment=smoke", "train.epochs=1"]
    sweep.append(f"seed=range({trials})")
    run(sweep, place)
    start = time.perf_counter()
    with subprocess.Popen(sweep, cwd=place, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        plan = process.stdout.readline()
        planned = time.perf_counter() - start
        process.communicate()
    ended = time.perf_counter() - start
    if process.returncode or f"{trials} known, 0 to run" not in plan:
        sys.exit(f"error: the sweep of known trials failed, or did not know them all: {plan}")
    name = f"{trials} known trials"
    return {f"{name}, until the plan": [Run(planned)], f"{name}, to the end": [Run(ended)]}


if __name__ == "__main__":
    main()
