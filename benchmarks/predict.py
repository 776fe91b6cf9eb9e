"""Time `pipeline predict` on one picture, against a script with the Keras model, and on 10,000 pictures.

    python -m benchmarks.predict [--repeats 5]

The model is the baseline's, trained for one epoch. Writes predict.json and predict.md next to this file.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import Ratio, Run, note, prepare_repository, render, run, save, summarise, timed

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
    with tempfile.TemporaryDirectory() as folder:
        place = prepare_repository(Path(folder) / "repository", "train:\n  epochs: 1\n")
        run(["dvc", "repro"], place)
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        images = np.load(place / "data" / "raw" / "test_images.npy", mmap_mode="r")[:PICTURES]
        for number, image in enumerate(images):
            Image.fromarray(np.array(image)).save(pictures / f"{number}.png")
        first = str(pictures / "0.png")
        predict = ["pipeline", "predict"]
        runs: dict[str, list[Run]] = {}
        for _ in range(options.repeats):
            for name, command in (
                (ONE, [*predict, first]),
                (PEER, [sys.executable, "-c", SCRIPT, first]),
                (MANY, [*predict, str(pictures)]),
            ):
                note(runs, name, timed(command, place, memory=True)[0])
    results = summarise(runs, options.repeats, RATIOS)
    many = results["measured"][MANY]["wall"]  # type: ignore[index]
    rate = f"{PICTURES / many:,.0f} pictures a second from the folder."
    save("predict", results, f"{render(results)}\n{rate}\n")


if __name__ == "__main__":
    main()
