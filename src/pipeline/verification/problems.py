"""The problems that verification finds, and the hashing of many files."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.console import track

Area = Literal["cache", "workspace", "run", "mlflow", "registry"]
_FEW = 100  # files, for which no progress bar is needed
_THREADS = 8  # hashing releases the interpreter lock, so that threads use all cores


@dataclass(frozen=True)
class Problem:
    """Something that differs from what was recorded."""

    area: Area
    text: str  # what is wrong, where, and which stage or run it belongs to
    path: Path | None = None  # the path of the file
    name: str = ""  # the object in the cache, the file in the workspace, an artifact, a metric or a journal
    run: str = ""  # MLflow's id of the run or of the logged model that has the file
    digest: str = ""  # the expected digest of the file: MD5 in cache and workspace, SHA-256 elsewhere
    stage: str = ""  # the stage that has the file as an output in dvc.lock
    value: float | None = None  # the expected value of the metric `name` of `run`


def digests(paths: Iterable[Path], algorithm: str, description: str) -> dict[Path, str | None]:
    """Return the digest of each file, computed in parallel; None for files that do not exist."""
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
