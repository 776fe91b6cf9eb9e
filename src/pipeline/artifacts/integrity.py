"""What a stage reads, held against the digests recorded for it: a damaged file is not worked on."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.artifacts.workspace import Workspace, sha256
from pipeline.errors import PipelineError


def refuse_damaged(workspace: Workspace, expected: Mapping[Path, str]) -> None:
    """Hash the files, side by side.

    Args:
        workspace: that they lie in.
        expected: the SHA-256 recorded for each.

    Raises:
        PipelineError: a file is missing, or its bytes are not those recorded; it says what restores it.
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
        f"{expected[damaged[0]]}. Nothing was made of it. Delete what is damaged, then run `dvc repro`:\n"
        f"  rm -f {' '.join(map(str, delete))}"
    )


def _cached(workspace: Workspace, path: Path) -> Path | None:
    """The object in DVC's cache, by dvc.lock, of `path`: an output, or a file in one."""
    import yaml

    cache = workspace.dvc_cache() / "files" / "md5"
    try:
        lock = yaml.safe_load(workspace.dvc_lock.read_text(encoding="utf-8"))
        outputs: list[dict[str, Any]] = [
            output for stage in lock["stages"].values() for output in stage.get("outs", [])
        ]
        for output in outputs:
            whole, digest = workspace.root / output["path"], output["md5"]
            if path == whole:
                return Path(cache, digest[:2], digest[2:])
            if path.is_relative_to(whole):
                files = json.loads((cache / digest[:2] / digest[2:]).read_text(encoding="utf-8"))
                inner = path.relative_to(whole).as_posix()
                [digest] = [file["md5"] for file in files if file["relpath"] == inner]
                return Path(cache, digest[:2], digest[2:])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return None
    return None
