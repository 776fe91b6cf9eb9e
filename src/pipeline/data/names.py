"""What pictures the raw images were: their names and sizes, for people; not part of what is pinned."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    # A file's name may have bytes that are no characters.
    (raw / _FILE).write_text(text + "\n", encoding="utf-8", errors="replace")


@dataclass(frozen=True)
class Pictures:
    """What the pictures were that a source has read, by its NAMES and SIZES."""

    names: Mapping[str, Sequence[str]]
    sizes: Mapping[str, NDArray[np.int32]]  # height and width, (n, 2)


def read_pictures(raw: Path) -> Pictures | None:
    """What `write_names` wrote; None: the source has no pictures."""
    try:
        found: dict[str, Any] = json.loads((raw / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Pictures(
        {name: [str(each) for each in found[name]] for name in NAMES},
        {name: np.array(found[name], np.int32).reshape(-1, 2) for name in SIZES},
    )
