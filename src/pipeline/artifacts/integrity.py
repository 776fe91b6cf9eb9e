"""Check the files that a stage reads against their recorded digests, so that no damaged file is used."""

import shlex
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.artifacts.workspace import Workspace, files_in, object_in, sha256
from pipeline.errors import PipelineError


def refuse_damaged(workspace: Workspace, expected: Mapping[Path, str]) -> None:
    """Hash files in parallel, and refuse those without the expected SHA-256.

    Raises:
        PipelineError: If a file is missing or has other bytes than recorded; the text says how to restore it.
    """
    missing = [path for path in expected if not path.is_file()]
    if missing:
        raise PipelineError(f"{missing[0]} is missing: `dvc repro` restores it.")
    with ThreadPoolExecutor(len(expected)) as threads:
        found = dict(zip(expected, threads.map(sha256, expected), strict=True))
    damaged = [path for path in expected if found[path] != expected[path]]
    if not damaged:
        return
    delete = list(damaged)
    for path in damaged:
        cached = _cached(workspace, path)
        if cached and cached.is_file() and sha256(cached) == found[path]:
            delete.append(cached)
    raise PipelineError(
        f"{damaged[0]} is damaged: its SHA-256 is {found[damaged[0]]}, not the recorded "
        f"{expected[damaged[0]]}. It was not used. Delete the damaged files, then run `dvc repro`:\n"
        f"  rm -f {shlex.join(map(str, delete))}"
    )


def _cached(workspace: Workspace, path: Path) -> Path | None:
    """Return the cached object of `path`, an output in dvc.lock or a file in one; None if there is none."""
    import yaml

    cache = workspace.dvc_cache()
    try:
        lock = yaml.safe_load(workspace.dvc_lock.read_text(encoding="utf-8"))
        for output in [output for stage in lock["stages"].values() for output in stage.get("outs", [])]:
            whole = workspace.root / output["path"]
            if path == whole:
                return object_in(cache, output["md5"])
            if path.is_relative_to(whole):
                inner = path.relative_to(whole).as_posix()
                return object_in(cache, files_in(cache, output["md5"])[inner])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return None
    return None
