"""The names and sizes of the pictures that the raw images were made from; informative, and not pinned."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.arrays import NAMES, SIZES
from pipeline.errors import PipelineError

_FILE = "names.json"


def write_names(
    raw: Path, names: Mapping[str, Sequence[str]], sizes: Mapping[str, NDArray[np.int32]]
) -> None:
    """Write the names and sizes of training and test pictures, in the order of the arrays.

    The names are by NAMES, the sizes, height and width (n, 2), by SIZES.
    """
    # Flat lists: nested ones would take twice the space.
    sizes_of = {name: of.ravel().tolist() for name, of in sizes.items()}
    text = json.dumps({**names, **sizes_of}, ensure_ascii=False)
    # The name of a file may have bytes that can't be decoded.
    (raw / _FILE).write_text(text + "\n", encoding="utf-8", errors="replace")


@dataclass(frozen=True)
class Pictures:
    """The pictures that a source has read, by NAMES and SIZES."""

    names: Mapping[str, Sequence[str]]
    sizes: Mapping[str, NDArray[np.int32]]  # height and width, (n, 2)


def read_pictures(raw: Path) -> Pictures | None:
    """Read what `write_names` wrote, or return None if the source has no pictures.

    Raises:
        PipelineError: If the file is damaged.
    """
    path = raw / _FILE
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Pictures(
            {name: [str(each) for each in found[name]] for name in NAMES},
            {name: np.array(found[name], np.int32).reshape(-1, 2) for name in SIZES},
        )
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError):
        raise PipelineError(f"{path} is damaged: delete it, and `dvc repro` restores it.") from None
