"""The benchmark behind `make bench` runs from start to end; its results are not checked here."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(("part", "measured"), [("baseline", "dvc repro"), ("size", "ten times MNIST")])
def test_make_bench_measures_the_baseline_and_ten_times_the_data(part, measured):
    # The command of the target `make bench`, but in the environment of the tests.
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--repeats", "1", "--only", part],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert measured in done.stdout
