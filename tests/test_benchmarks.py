"""What `make bench` calls runs from end to end; its figures are measured elsewhere."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.slow
def test_make_bench_measures_the_baseline(tmp_path):
    # The command of the Makefile's target `make bench`, whose environment this is not.
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--repeats", "1", "--only", "baseline"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dvc repro" in done.stdout
