"""Time `pipeline predict` on one picture, against a script with the Keras model, and on 10,000 pictures.

    python -m benchmarks.predict [--repeats 5]

The model is the baseline's, trained for one epoch. Writes predict.json and predict.md next to this file.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.__main__ import HERE, Ratio, Run, prepare_repository, render, run, summarise

SCRIPT = """
import sys
import keras, numpy
from PIL import Image
model = keras.models.load_model("models/model.keras")
image = numpy.asarray(Image.open(sys.argv[1]))
print(model.predict_on_batch(image[None]).argmax())
"""
PICTURES = 10_000
ONE, PEER = "pipeline predict, one PNG", "a script with Keras, one PNG"
MANY = f"pipeline predict, {PICTURES:,} PNG files"
RATIOS = (Ratio("one PNG, against the script with Keras", ONE, PEER),)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predict", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = "src"
    with tempfile.TemporaryDirectory() as folder:
        place = prepare_repository(Path(folder) / "repository")
        local = place / "conf" / "local" / "default.yaml"
        local.parent.mkdir(exist_ok=True)
        local.write_text("# @package _global_\ntrain:\n  epochs: 1\n")
        run(["dvc", "repro"], place)
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        images = np.load(place / "data" / "raw" / "test_images.npy", mmap_mode="r")[:PICTURES]
        for number, image in enumerate(images):
            Image.fromarray(np.array(image)).save(pictures / f"{number}.png")
        first = str(pictures / "0.png")
        predict = [sys.executable, "-c", "from pipeline.cli import main; main()", "predict"]
        runs: dict[str, list[Run]] = {}
        for _ in range(options.repeats):
            for name, command in (
                (ONE, [*predict, first]),
                (PEER, [sys.executable, "-c", SCRIPT, first]),
                (MANY, [*predict, str(pictures)]),
            ):
                runs.setdefault(name, []).append(measured(command, place))
    results = summarise(runs, options.repeats, RATIOS)
    many = results["measured"][MANY]["wall"]  # type: ignore[index]
    table = f"{render(results)}\n{PICTURES / many:,.0f} pictures a second from the folder.\n"
    (HERE / "predict.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (HERE / "predict.md").write_text(table, encoding="utf-8")
    print(table)


def measured(command: list[str], place: Path) -> Run:
    """Time `command` in `place`; end the benchmark if it fails."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=place, stdout=output, stderr=subprocess.STDOUT)
        # Unlike the subprocess module, wait4 reports the memory of this process alone.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{output.read().decode()}")
    wall = time.perf_counter() - start
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


if __name__ == "__main__":
    main()
