"""Compare the time of the baseline with Keras on JAX and with Keras on TensorFlow, both on the CPU.

    python -m benchmarks.jax [--repeats 5]

Measures a steady epoch of the loop, the whole `dvc repro` with only the raw data in the cache, and then
`dvc repro` with another seed, for which JAX has the network compiled already. Writes jax.json and jax.md next
to this file. `python -m benchmarks.gpu` measures a GPU.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from benchmarks.common import (
    REPOSITORY,
    Ratio,
    Run,
    inside,
    measure,
    prepare_repository,
    render,
    save,
    save_npz,
    set_local,
    summarise,
)

BACKENDS = ("tensorflow", "jax")
RATIOS = tuple(
    Ratio(f"{what}: JAX against TensorFlow", f"{what}, jax", f"{what}, tensorflow")
    for what in ("epoch", "dvc repro", "another seed")
)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jax", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    runs: dict[str, list[Run]] = {}
    with tempfile.TemporaryDirectory() as folder:
        fetched = prepare_repository(Path(folder) / "fetched")
        npz = save_npz(Path(folder) / "mnist.npz", fetched)
        for _ in range(repeats):
            for backend in BACKENDS:
                epoch = [*inside("epoch-loop", npz), f"train.backend={backend}"]
                measure(runs, f"epoch, {backend}", epoch, REPOSITORY)
                workspace = Path(folder) / "workspace"
                shutil.copytree(fetched, workspace, symlinks=True)
                set_local(workspace, f"train:\n  backend: {backend}\n")
                measure(runs, f"dvc repro, {backend}", ["dvc", "repro"], workspace)
                set_local(workspace, f"seed: 1\ntrain:\n  backend: {backend}\n")
                measure(runs, f"another seed, {backend}", ["dvc", "repro"], workspace)
                shutil.rmtree(workspace)
    results = summarise(runs, repeats, RATIOS)
    save("jax", results, render(results))


if __name__ == "__main__":
    main()
