"""Repair what is damaged or missing from another copy, or else make it again."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts.workspace import SHOWN, Workspace, atomic, copy_file, files_in, remove, sha256
from pipeline.config.schema import TrackingSection
from pipeline.registry.journal import path_of
from pipeline.registry.registered import open_journal
from pipeline.tracking.store import open_store
from pipeline.trials.run_cache import past_outputs
from pipeline.verification.cache import Cache
from pipeline.verification.problems import Problem, digests
from pipeline.verification.rerun import rebuild, results_in, run_again

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MODEL = "m-"  # the prefix of the ids of logged models in MLflow


def repair(
    problems: Sequence[Problem], cache: Cache, tracking: TrackingSection, downloaded: Path
) -> list[str]:
    """Repair what can be repaired, and return a line for each attempt.

    `downloaded` has the artifacts that were downloaded from MLflow.
    """
    lines, lost = [], []
    copies = [
        *cache.workspace.root.glob("models/*"),
        *cache.workspace.root.glob("reports/*"),
        *(cache.workspace.home / "mlruns").rglob("*"),
        *downloaded.rglob("*"),
        *(cache.workspace.root / output.path for output in cache.files()),
    ]
    known = {digest: path for path, digest in digests(copies, "md5", "Hashed copies:").items() if digest}
    for problem in problems:
        if problem.area == "cache":
            if how := _restore_object(problem, cache, known):
                lines.append(f"{problem.path}: {how}")
            else:
                lost.append(problem)
    for problem in problems:
        if problem.area == "workspace" and problem.digest:
            if how := _restore_file(problem, cache):
                lines.append(f"{problem.name}: {how}")
            else:
                lost.append(problem)
    lines += run_again(lost, cache)
    lines += _restore_artifacts(
        [problem for problem in problems if problem.area == "mlflow" and problem.digest],
        cache,
        tracking,
        downloaded,
    )
    lines += _restore_metrics(problems, cache, tracking)
    for problem in problems:
        if problem.area == "registry" and problem.name:
            how = _restore_journal(problem.name, cache.workspace, tracking)
            lines.append(f"journal of {problem.name}: {how}")
    return lines


def _restore_object(problem: Problem, cache: Cache, known: Mapping[str, Path]) -> str:
    """Restore an object of the cache, and return how; empty if its stage must make it again."""
    assert problem.path
    remove(problem.path)
    if copy := known.get(problem.digest):
        copy_file(copy, problem.path)
        where = "MLflow's copy" if "mlruns" in copy.parts else "the workspace"
        return f"restored from {where}, {copy}"
    if problem.digest.endswith(".dir") and (content := _list_of_folder(problem.digest, cache)):
        with atomic(problem.path) as temporary:
            temporary.write_bytes(content)
        return "restored from the workspace's folder"
    if _fetch(problem.digest, cache) and problem.path.is_file():
        return "fetched from the DVC remote"
    return "" if problem.stage else "removed: that result is made again when it is needed"


def _list_of_folder(digest: str, cache: Cache) -> bytes | None:
    """Return DVC's list of a folder, made from the workspace, or None if its files have changed."""
    root = cache.workspace.root
    for folder in (root / output.path for output in cache.locked() if output.md5 == digest):
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = [
            {"md5": md5, "relpath": path.relative_to(folder).as_posix()}
            for path, md5 in digests(paths, "md5", "Hashed files of the folder:").items()
        ]
        files.sort(key=lambda file: str(file["relpath"]))
        content = json.dumps(files).encode()
        if hashlib.md5(content).hexdigest() + ".dir" == digest:  # noqa: S324 (DVC's)
            return content
    return None


def _fetch(digest: str, cache: Cache) -> bool:
    """Fetch an object from the default remote, if there is one; return whether that worked."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc_data.hashfile.hash_info import HashInfo

    with suppress(DvcException, OSError), Repo(str(cache.workspace.root)) as repo:
        repo.cloud.pull({HashInfo("md5", digest)})
        return True
    return False


def _restore_file(problem: Problem, cache: Cache) -> str:
    """Restore an output in the workspace, and return how; empty if the cache does not have it."""
    assert problem.path
    source = cache.place(problem.digest)
    if not source.is_file():
        return ""
    copy_file(source, problem.path)
    return "restored from the cache"


def _restore_metrics(problems: Sequence[Problem], cache: Cache, tracking: TrackingSection) -> Iterator[str]:
    """Set metrics in MLflow to the values in the files of their runs."""
    if shown := [problem for problem in problems if problem.value is not None]:
        client = open_store(tracking, cache.workspace).client
        for problem in shown:
            # MLflow shows the latest value; the wrong one stays in the history of the metric.
            client.log_metric(problem.run, problem.name, problem.value)
            yield f"{problem.name} in MLflow: restored from metrics.json"


def _restore_artifacts(
    problems: Sequence[Problem], cache: Cache, tracking: TrackingSection, downloaded: Path
) -> Iterator[str]:
    """Restore files in MLflow."""
    if not problems:
        return
    client = open_store(tracking, cache.workspace).client

    def put(problem: Problem, source: Path) -> None:
        assert problem.path
        if problem.path.is_relative_to(downloaded):
            _send(problem, source, client)
        else:
            copy_file(source, problem.path)

    lost: dict[str, list[Problem]] = {}
    copies = {sha256(path): path for path in _outputs(cache) if path.is_file()}
    for problem in problems:
        if source := copies.get(problem.digest):
            put(problem, source)
            yield f"{problem.name} in MLflow: restored from {source}"
        elif not problem.run.startswith(_MODEL):
            lost.setdefault(problem.run, []).append(problem)
        elif problem.name.endswith((".keras", ".onnx")):
            run = client.get_logged_model(problem.run).source_run_id
            lost.setdefault(str(run), []).append(problem)
        else:
            yield f"{problem.name} in MLflow: no copy was found, and no stage can write it again."
    for run, parts in lost.items():
        yield from rebuild(run, parts, tracking, cache.workspace, put)


def _send(problem: Problem, source: Path, client: "MlflowClient") -> None:
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / problem.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        if problem.run.startswith(_MODEL):
            client.log_model_artifacts(problem.run, temporary)
        else:
            client.log_artifacts(problem.run, temporary)


def _outputs(cache: Cache) -> Iterator[Path]:
    """Yield the files that MLflow shows, in the workspace and in all past results."""
    yield from results_in(cache.workspace)
    for digest, path, _ in past_outputs(cache.root):
        if path.startswith(SHOWN):
            for md5 in (digest, *files_in(cache.root, digest).values()):
                yield cache.place(md5)


def _restore_journal(name: str, workspace: Workspace, tracking: TrackingSection) -> str:
    """Restore the journal on disk from MLflow's copy, which can't have been changed."""
    path = path_of(tracking, workspace, name)
    damaged = path.with_suffix(".damaged")
    if path.exists():
        os.replace(path, damaged)
    open_journal(name, tracking, workspace)
    return f"restored from MLflow's copy; the damaged one is {damaged.name}"
