"""Time reading your own images (MNIST as a folder, an archive and tables), compared with a loop of Pillow.

    python -m benchmarks.own_data [--repeats 5] [--images 60000]

Writes own_data.json and own_data.md next to this file, unless the number of images is not 60,000.
"""

import argparse
import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import (
    Ratio,
    Run,
    inside,
    measure,
    prepare_repository,
    render,
    run,
    save,
    set_local,
    summarise,
)

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


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.own_data", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=IMAGES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = prepare_repository(Path(folder) / "repository")
        sources = write_sources(Path(folder) / "sources", place / "data" / "raw", options.images)
        for name, source in sources.items():
            run(["pipeline", "add-data", str(source), "--name", name], place)
        runs = measure_all(place, sources, options.repeats)
    results = summarise(runs, options.repeats, RATIOS)
    table = render(results)
    if options.images == IMAGES:
        save("own_data", results, table)
    else:
        print(table)


def measure_all(place: Path, sources: dict[str, Path], repeats: int) -> dict[str, list[Run]]:
    """Measure everything in turn; `dvc repro` with nothing to do comes last, since it needs a result."""
    runs: dict[str, list[Run]] = {}
    for _ in range(repeats):
        measure(runs, LOOP, inside("pillow", sources["folder"]), place)
        for kind, what in {**FETCH, "tenfold": TENFOLD}.items():
            measure(runs, what, inside("fetch", kind), place)
        add_again = ["pipeline", "add-data", str(sources["folder"]), "--name", "folder"]
        measure(runs, AGAIN, add_again, place)
    for name, what in (("folder", NO_OP), ("few", NO_OP_FEW)):
        set_local(place, f"defaults:\n  - override /data: {name}\ntrain:\n  epochs: 1\n")
        run(["dvc", "repro"], place)
        for _ in range(repeats):
            measure(runs, what, ["dvc", "repro"], place)
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
