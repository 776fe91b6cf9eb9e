"""The data sets of keras.datasets, from Keras's cache or the address that Keras downloads from."""

import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from pipeline.artifacts.workspace import RAW_ARRAYS
from pipeline.config.section import SourceSection
from pipeline.console import say
from pipeline.data.arrays import Arrays
from pipeline.data.download import download
from pipeline.data.formats import idx
from pipeline.data.formats.npy import read_npz

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection


class KerasSource(SourceSection):
    """A data set of keras.datasets."""

    kind: Literal["keras"]
    dataset: Literal["mnist", "fashion_mnist"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]


def load(source: KerasSource, data: "DataSection", home: Path) -> Arrays:
    """Read a data set of keras.datasets from Keras's cache, or download it from where Keras does."""
    cache = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets"

    def opened(name: str, folder: str = "") -> IO[bytes]:
        cached = cache / folder / name
        if cached.is_file():
            say(f"Reading {cached}")
            return cached.open("rb")
        return download(f"{source.url}/{name}", data)

    if source.dataset == "mnist":
        with opened("mnist.npz") as file:
            members = dict(zip(RAW_ARRAYS, ("x_train", "y_train", "x_test", "y_test"), strict=True))
            return read_npz(file, "mnist.npz", members, data.max_bytes)
    arrays = {}
    for raw_name, name in zip(RAW_ARRAYS, idx.PUBLISHED_NAMES, strict=True):
        with opened(f"{name}.gz", "fashion-mnist") as file:
            arrays[raw_name] = idx.read(file, f"{name}.gz", data.max_bytes)
    return arrays
