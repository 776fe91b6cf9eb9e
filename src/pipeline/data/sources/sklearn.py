"""The digits that come with scikit-learn, with their grey levels 0 to 16 scaled to 0 to 255."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.config.section import SourceSection
from pipeline.data.arrays import Arrays

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection


class SklearnSource(SourceSection):
    """A data set of sklearn.datasets."""

    kind: Literal["sklearn"]
    dataset: Literal["digits"]


def load(source: SklearnSource, data: "DataSection", home: Path) -> Arrays:
    """Read the digits that come with scikit-learn, with their grey levels 0 to 16 scaled to 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int32)
    return {
        "train_images": images[:1437],
        "train_labels": labels[:1437],
        "test_images": images[1437:],
        "test_labels": labels[1437:],
    }
