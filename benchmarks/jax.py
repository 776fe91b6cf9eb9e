"""Compare the time of the baseline with Keras on JAX and with Keras on TensorFlow, both on the CPU.

    python -m benchmarks.jax [--repeats 5]

Measures a steady epoch of the loop, and the whole `dvc repro` with only the raw data in the cache. Writes
jax.json and jax.md next to this file. `python -m benchmarks.gpu` measures a GPU.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from benchmarks.__main__ import (
    HERE,
    REPOSITORY,
    Ratio,
    Run,
    inside,
    prepare_repository,
    render,
    save_npz,
    summarise,
    timed,
)

BACKENDS = ("tensorflow", "jax")
RATIOS = tuple(
    Ratio(f"{what}: JAX against TensorFlow", f"{what}, jax", f"{what}, tensorflow")
    for what in ("epoch", "dvc repro")
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
                runs.setdefault(f"epoch, {backend}", []).append(
                    Run(**json.loads(timed(epoch, REPOSITORY)[1]))
                )
                workspace = Path(folder) / "workspace"
                shutil.copytree(fetched, workspace, symlinks=True)
                conf = workspace / "conf" / "train" / "default.yaml"
                conf.write_text(conf.read_text().replace("backend: tensorflow", f"backend: {backend}"))
                runs.setdefault(f"dvc repro, {backend}", []).append(timed(["dvc", "repro"], workspace)[0])
                shutil.rmtree(workspace)
    results = summarise(runs, repeats, RATIOS)
    table = render(results)
    (HERE / "jax.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (HERE / "jax.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
