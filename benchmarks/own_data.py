"""Time reading your own images (MNIST as a folder, an archive and tables), compared with a loop of Pillow.

    python -m benchmarks.own_data [--repeats 5] [--images 60000]

Writes own_data.json and own_data.md next to this file, unless the number of images is not 60,000.
"""

import argparse
import io
import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.__main__ import HERE, Ratio, Run, prepare_repository, render, run, summarise, timed

IMAGES, TIMES, FEW = 60_000, 10, 600
LOOP = "a bare loop of Pillow over the PNG files"
FETCH = {
    "folder": "fetch, class folders",
    "archive": "fetch, a zip of them",
    "csv": "fetch, a CSV of pixels",
    "parquet": "fetch, Parquet with PNGs",
}
TENFOLD, AGAIN = "fetch, a zip of ten times as many", "add-data again, nothing changed"
NO_OP, NO_OP_FEW = "repro, no-op, all the files", f"repro, no-op, {FEW} files"
RATIOS = (
    *(Ratio(f"{what}, against the bare loop", what, LOOP) for what in FETCH.values()),
    Ratio("ten times the images, in a zip", TENFOLD, FETCH["archive"]),
    Ratio(f"`dvc repro` with nothing to do: all the files against {FEW}", NO_OP, NO_OP_FEW),
)
INSIDE = """
import json, resource, sys, time
from pathlib import Path
from pipeline.artifacts.workspace import Workspace
from pipeline.config.compose import compose
from pipeline.stages import fetch

workspace = Workspace(Path.cwd())
config = compose(workspace.root / "conf", sys.argv[1:])
start = time.perf_counter(), time.process_time()
fetch.run(config, workspace)
wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
of_children = resource.getrusage(resource.RUSAGE_CHILDREN)
# Not ru_maxrss, which starts with the value of the parent process.
[peak] = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")]
cpu += of_children.ru_utime + of_children.ru_stime
print(json.dumps({"wall": wall, "cpu": cpu, "peak": max(peak, of_children.ru_maxrss) / 1024}))
"""
LOOP_CODE = """
import json, sys, time
from pathlib import Path
import numpy
from PIL import Image

start = time.perf_counter(), time.process_time()
paths = [path for folder in sorted(Path(sys.argv[1]).iterdir()) for path in sorted(folder.iterdir())]
images = numpy.stack([numpy.asarray(Image.open(path).convert("L")) for path in paths])
wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
[peak] = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")]
peak /= 1024
print(json.dumps({"wall": wall, "cpu": cpu, "peak": peak}))
"""


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.own_data", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=IMAGES)
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = "src"
    with tempfile.TemporaryDirectory() as folder:
        place = prepare_repository(Path(folder) / "repository")
        sources = write_sources(Path(folder) / "sources", place / "data" / "raw", options.images)
        for name, source in sources.items():
            run(add_data(source, name), place)
        runs = measure(place, sources, options.repeats)
    results = summarise(runs, options.repeats, RATIOS)
    table = render(results)
    if options.images == IMAGES:
        (HERE / "own_data.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        (HERE / "own_data.md").write_text(table, encoding="utf-8")
    print(table)


def add_data(source: Path, name: str) -> list[str]:
    """Return the command that adds `source`."""
    verb = "from pipeline.cli import main; main()"
    return [sys.executable, "-c", verb, "add-data", str(source), "--name", name]


def measure(place: Path, sources: dict[str, Path], repeats: int) -> dict[str, list[Run]]:
    """Measure everything in turn; `dvc repro` with nothing to do comes last, since it needs a result."""
    runs: dict[str, list[Run]] = {}

    def note(name: str, of: Run) -> None:
        runs.setdefault(name, []).append(of)
        print(f"{name}: {of.wall:.2f} s", flush=True)

    for _ in range(repeats):
        note(LOOP, Run(**json.loads(run([sys.executable, "-c", LOOP_CODE, str(sources["folder"])], place))))
        for kind, what in {**FETCH, "tenfold": TENFOLD}.items():
            printed = run([sys.executable, "-c", INSIDE, f"data={kind}"], place)
            note(what, Run(**json.loads(printed.splitlines()[-1])))
        note(AGAIN, timed(add_data(sources["folder"], "folder"), place)[0])
    for name, what in (("folder", NO_OP), ("few", NO_OP_FEW)):
        local = place / "conf" / "local" / "default.yaml"
        local.parent.mkdir(exist_ok=True)
        local.write_text(f"# @package _global_\ndefaults:\n  - override /data: {name}\ntrain:\n  epochs: 1\n")
        run(["dvc", "repro"], place)
        for _ in range(repeats):
            note(what, timed(["dvc", "repro"], place)[0])
    return runs


def write_sources(folder: Path, raw: Path, count: int) -> dict[str, Path]:
    """Write the first `count` MNIST images in each form, and ten times as many in a zip."""
    folder.mkdir()
    images = np.load(raw / "train_images.npy", mmap_mode="r")[:count]
    labels = np.load(raw / "train_labels.npy")[:count]
    pictures: list[tuple[str, bytes]] = []
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        content = io.BytesIO()
        Image.fromarray(np.array(image)).save(content, "PNG")
        pictures.append((f"{label}/{number}.png", content.getvalue()))
    places = {
        **{name: folder / name for name in ("folder", "few")},
        "archive": folder / "archive.zip",
        "tenfold": folder / "tenfold.zip",
        "csv": folder / "pixels.csv",
        "parquet": folder / "pictures.parquet",
    }
    for name, some in (("folder", pictures), ("few", pictures[:FEW])):
        for label in range(10):
            (places[name] / str(label)).mkdir(parents=True)
        for path, content in some:
            (places[name] / path).write_bytes(content)
    for name, times in (("archive", 1), ("tenfold", TIMES)):
        with zipfile.ZipFile(places[name], "w") as archive:
            for time in range(times):
                for path, content in pictures:
                    label, _, rest = path.partition("/")
                    archive.writestr(f"{label}/{time}-{rest}", content)
    header = ",".join(["label", *(f"pixel{number}" for number in range(images[0].size))])
    rows = np.column_stack([labels, images.reshape(count, -1)])
    np.savetxt(places["csv"], rows, "%d", ",", header=header, comments="")
    write_parquet(places["parquet"], pictures, labels.tolist())
    return places


def write_parquet(path: Path, pictures: list[tuple[str, bytes]], labels: list[int]) -> None:
    """Write the pictures as a Parquet file like those of Hugging Face."""
    import pyarrow
    import pyarrow.parquet

    column = [{"bytes": content, "path": name} for name, content in pictures]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({"image": pyarrow.array(column, kind), "label": labels})
    pyarrow.parquet.write_table(table, path)


if __name__ == "__main__":
    main()
