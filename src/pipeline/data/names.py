"""What the files of the raw images are called, for people: not part of what is pinned."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.data.arrays import NAMES

_FILE = "names.json"


def write_names(raw: Path, names: Mapping[str, Sequence[str]]) -> None:
    """Write the names of training and test images, in the order of the arrays."""
    (raw / _FILE).write_text(json.dumps(names, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def read_names(raw: Path) -> dict[str, list[str]] | None:
    """Read them; None: the source has none."""
    try:
        names = json.loads((raw / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return {name: [str(each) for each in names[name]] for name in NAMES}
