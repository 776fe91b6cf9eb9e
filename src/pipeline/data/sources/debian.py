"""The IDX files in a Debian package, fetched by APT but not installed."""

import math
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.config.section import Package, SourceSection
from pipeline.data.arrays import Arrays
from pipeline.data.packages import only, read_archive, run
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection


class DebianSource(SourceSection):
    """A package of the Debian archive."""

    kind: Literal["debian"]
    package: Package


def load(source: DebianSource, data: "DataSection", home: Path) -> Arrays:
    """Read the IDX files in a Debian package, which APT downloads but does not install."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "Acquire::Retries": str(data.retries),
            "Acquire::http::Timeout": str(math.ceil(data.timeout)),
            "Acquire::https::Timeout": str(math.ceil(data.timeout)),
        }
        try:
            _apt(settings, folder, data.deadline, "download", "--", source.package)
        except PipelineError:
            # The package lists may be missing or old; separate ones can be downloaded without being root.
            for setting, name in ("Dir::State", "state"), ("Dir::Cache", "cache"):
                Path(folder, name).mkdir()
                settings[setting] = f"{folder}/{name}"
            _apt(settings, folder, data.deadline, "update")
            _apt(settings, folder, data.deadline, "download", "--", source.package)
        command = ["dpkg-deb", "--fsys-tarfile", str(only(folder, "*.deb"))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout
            try:
                return read_archive(process.stdout, source.package, data.max_bytes)
            finally:
                process.kill()


def _apt(settings: Mapping[str, str], folder: str, deadline: float, *command: str) -> None:
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    run(["apt-get", "--quiet", *options, *command], folder, deadline)
