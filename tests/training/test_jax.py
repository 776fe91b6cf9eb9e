"""The backend JAX: on_jax.py runs in a separate process, since a process has one backend of Keras."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(*options):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:xdist", str(HERE / "on_jax.py"), *options],
        cwd=HERE.parents[1],
        env=os.environ | {"PYTHONPATH": str(HERE.parents[1] / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_jax_distorts_as_numpy_does_and_resumes_a_training_with_the_same_bits():
    run("-k", "(grey_level and None) or interrupted or tensorflow")


@pytest.mark.slow
def test_jax_trains_as_keras_does_on_one_device_and_on_four():
    run()
