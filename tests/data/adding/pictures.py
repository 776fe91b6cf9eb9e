"""Synthetic pictures and tables."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image


def save(path: Path, seed: int, size=(9, 9), format="PNG") -> None:
    """Save a picture that is different for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, format)


def write(path: Path, rows, separator=",", end="\n") -> Path:
    """Write a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator, lineterminator=end).writerows(rows)
    return path


def dog_breeds(folder: Path) -> dict[Path, int]:
    """Write pictures and a table as on Kaggle; the test pictures have no labels."""
    rows, labelled = [["id", "breed"]], {}
    for number in range(24):
        path = folder / ("train" if number < 20 else "test") / f"{number:032x}.png"
        save(path, number)
        if number < 20:
            rows.append([path.stem, ("boxer", "pug")[number % 2]])
            labelled[path] = number % 2
    write(folder / "labels.csv", rows)
    write(folder / "sample_submission.csv", [["id", "boxer", "pug"], [f"{20:032x}", 0.5, 0.5]])
    write(folder / "prices.csv", [["id", "price"], ["boxer", 500], ["pug", 700]])
    return labelled


def pixels(path: Path) -> bytes:
    return np.asarray(Image.open(path)).tobytes()


def assert_holds(arrays, pictures: dict[Path, int]) -> None:
    """Check that each picture is in training or test, with its label."""
    found = {
        image.tobytes(): int(label)
        for split in ("train", "test")
        for image, label in zip(arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True)
    }
    assert found == {pixels(path): label for path, label in pictures.items()}
