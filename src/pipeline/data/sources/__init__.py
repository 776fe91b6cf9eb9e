"""Sources: each module is a place that raw arrays come from, with its settings and its `load` function."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.section import SourceSection
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection
    from pipeline.data.arrays import Arrays


def load(source: SourceSection, data: "DataSection", home: Path) -> "Arrays":
    """Get the raw arrays from one source, unchanged.

    Relative paths are relative to `home`; `data` has the limits: timeout, retries, bytes.

    Raises:
        PipelineError: If the source can't be reached, is damaged or unsafe, or exceeds the limits.
    """
    try:
        arrays: Arrays = importlib.import_module(f"{__name__}.{source.kind}").load(source, data, home)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise PipelineError(f"{error.strerror or error}{where}") from error
    return arrays
