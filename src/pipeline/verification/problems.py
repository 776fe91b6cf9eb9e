"""What verification finds, and the hashing of many files."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.console import track

Area = Literal["cache", "workspace", "run", "mlflow", "registry"]
_FEW = 100  # files, which take no time
_THREADS = 8  # hashing lets go of the interpreter, so that threads use all cores


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was recorded."""

    area: Area
    text: str  # what is wrong, where, and where it came from
    path: Path | None = None  # of the file
    name: str = ""  # of the object in the cache, of the file in the workspace, or among a run's artifacts
    run: str = ""  # MLflow's id of the run or of the logged model that names the file
    digest: str = ""  # that the file should have: MD5 in the cache and the workspace, else SHA-256
    stage: str = ""  # whose output in dvc.lock it is
    value: float | None = None  # that the metric `name` of `run` should have


def digests(paths: Iterable[Path], algorithm: str, description: str) -> dict[Path, str | None]:
    """The digest of each file, side by side; None: there is no such file."""
    wanted = list(dict.fromkeys(paths))
    shown = track(len(wanted), description) if len(wanted) > _FEW else nullcontext()
    with ThreadPoolExecutor(_THREADS) as threads, shown as progress:
        found = {}
        for path, digest in zip(
            wanted, threads.map(lambda path: _digest(path, algorithm), wanted), strict=True
        ):
            found[path] = digest
            if progress:
                progress.advance(1)
    return found


def _digest(path: Path, algorithm: str) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
