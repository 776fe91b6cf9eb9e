"""Leftovers: find and remove temporary files and folders of processes that were killed."""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.artifacts.workspace import PROCESS, Workspace, is_alive, remove
from pipeline.trials.trial import remove_abandoned

_HALF, _TRIAL = "half-written file", "workspace of a dead trial"
_TEMPORARY = re.compile(rf"\..+\.({PROCESS})\.tmp(\..*)?")


def find_leftovers(workspace: Workspace) -> list[tuple[str, Path]]:
    """Return (kind, path) of half-written files, and of the folders of trials whose process died."""
    return [*_temporary(workspace), *_trials(workspace)]


def clean(workspace: Workspace, found: list[tuple[str, Path]]) -> None:
    """Remove leftovers, unless a process has started to use them in the meantime."""
    for what, path in found:
        if what == _HALF:
            remove(path)
    remove_abandoned(workspace.scratch / "trials")


def _temporary(workspace: Workspace) -> Iterator[tuple[str, Path]]:
    root = workspace.root
    below = [(root / name).glob("**/*") for name in ("models", "reports", "data")]
    for path in (*root.glob("*"), *chain(*below), *_scratch(workspace)):
        match = _TEMPORARY.fullmatch(path.name)
        if match and not is_alive(int(match[1])):
            yield _HALF, path


def _scratch(workspace: Workspace) -> Iterator[Path]:
    """Yield the files in .pipeline, except those in the installed packages of environments."""
    for path in workspace.scratch.glob("*"):
        yield path
        yield from path.glob("*" if path.name == "environments" else "**/*")


def _trials(workspace: Workspace) -> Iterator[tuple[str, Path]]:
    for path in (workspace.scratch / "trials").glob("*"):
        locks = [path.with_suffix(suffix) for suffix in (".lock", ".running")]
        if path.is_dir() and not any(lock.exists() and _is_held(lock) for lock in locks):
            yield _TRIAL, path


def _is_held(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
