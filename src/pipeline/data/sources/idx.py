"""A folder with the four IDX files, each with or without .gz."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from pipeline.artifacts.workspace import RAW_ARRAYS
from pipeline.config.section import SourceSection
from pipeline.data.arrays import Arrays
from pipeline.data.formats import idx
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection


class IdxSource(SourceSection):
    """A folder, absolute or relative to the repository."""

    kind: Literal["idx"]
    path: Annotated[str, Field(min_length=1)]


def load(source: IdxSource, data: "DataSection", home: Path) -> Arrays:
    """A folder with the four IDX files."""
    folder = home / source.path
    found = {name: path for path in sorted(folder.iterdir()) if (name := idx.raw_name(path.name))}
    if len(found) < len(RAW_ARRAYS):
        raise PipelineError(f"{folder} must hold {', '.join(idx.PUBLISHED_NAMES)}, each with or without .gz")
    arrays = {}
    for raw_name, path in found.items():
        with path.open("rb") as file:
            arrays[raw_name] = idx.read(file, path.name, data.max_bytes)
    return arrays
