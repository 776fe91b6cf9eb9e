"""scikit-learn's digits, to be written in the formats in which data are published."""

import csv
import functools
import io

import numpy as np
from sklearn.datasets import load_digits

TRAIN, TEST = slice(0, 300), slice(300, 360)


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    return np.rint(found.images * (255 / 16)).astype(np.uint8), found.target.astype(np.uint8)


def assert_original(arrays) -> None:
    """Check that these are the original digits, of which the first 300 are for training."""
    images, labels = digits()
    for split, part in (("train", TRAIN), ("test", TEST)):
        np.testing.assert_array_equal(arrays[f"{split}_images"], images[part])
        np.testing.assert_array_equal(arrays[f"{split}_labels"], labels[part])


def kaggle_rows(part: slice, first: str = "pixel0") -> list[list]:
    images, labels = digits()
    start = int(first.removeprefix("pixel"))
    header = ["label", *(f"pixel{start + at}" for at in range(64))]
    rows = zip(labels[part].tolist(), images[part].reshape(-1, 64).tolist(), strict=True)
    return [header, *([label, *pixels] for label, pixels in rows)]


def csv_bytes(rows, end="\n", quoting=csv.QUOTE_MINIMAL) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=end, quoting=quoting).writerows(rows)
    return file.getvalue().encode()


def both_splits() -> dict[str, np.ndarray]:
    images, labels = digits()
    return {
        "x_train": images[TRAIN],
        "y_train": labels[TRAIN],
        "x_test": images[TEST],
        "y_test": labels[TEST],
    }
