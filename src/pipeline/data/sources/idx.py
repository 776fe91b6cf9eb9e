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
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not (raw_name := idx.raw_name(path.name)):
            continue
        if raw_name in found:
            raise PipelineError(
                f"{folder} holds both {found[raw_name].name} and {path.name}: keep the one that is meant"
            )
        if not path.is_file():
            raise PipelineError(f"{path} is no file, but a folder, a pipe, a device or a dead link")
        found[raw_name] = path
    if len(found) < len(RAW_ARRAYS):
        raise PipelineError(f"{folder} must hold {', '.join(idx.PUBLISHED_NAMES)}, each with or without .gz")
    arrays = {}
    for raw_name, path in found.items():
        with path.open("rb") as file:
            arrays[raw_name] = idx.read(file, path.name, data.max_bytes)
    return arrays
