"""What pictures the raw images were: their names and sizes, for people; not part of what is pinned."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.arrays import NAMES, SIZES

_FILE = "names.json"


def write_names(
    raw: Path, names: Mapping[str, Sequence[str]], sizes: Mapping[str, NDArray[np.int32]]
) -> None:
    """Write what training and test pictures are called, and their sizes, in the order of the arrays."""
    # In one line each: a row for every number would take as much again.
    sizes_of = {name: of.ravel().tolist() for name, of in sizes.items()}
    text = json.dumps({**names, **sizes_of}, ensure_ascii=False)
    (raw / _FILE).write_text(text + "\n", encoding="utf-8")


def read_names(raw: Path) -> dict[str, list[str]] | None:
    """The names; None: the source has none."""
    names = _read(raw)
    return names and {name: [str(each) for each in names[name]] for name in NAMES}


def read_sizes(raw: Path) -> dict[str, NDArray[np.int32]] | None:
    """Height and width of each picture, int32 (n, 2); None: the source has no pictures."""
    sizes = _read(raw)
    return sizes and {name: np.array(sizes[name], np.int32).reshape(-1, 2) for name in SIZES}


def _read(raw: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((raw / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found
