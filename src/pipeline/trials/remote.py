"""Trainings that other clones made: DVC's run cache and all outputs that it tells of, to and from a remote.

DVC's own `push --run-cache` sends what every stage came to, but only the outputs of the workspace: of a
sweep's trials the remote would have the entries and not the models.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.workspace import Workspace, atomic
from pipeline.errors import PipelineError
from pipeline.tracking.occasion import OCCASIONS

if TYPE_CHECKING:
    from dvc_data.hashfile.hash_info import HashInfo


def push(workspace: Workspace, remote: str | None = None) -> str:
    """Send what the cache has of every stage that ever ran; a line that says how much was new.

    Raises:
        PipelineError: there is no such remote, or it refused.
    """
    with _opened(workspace) as repo:
        # The outputs first: an entry whose outputs are missing would promise what is not there.
        sent = repo.cloud.push(_outputs(workspace, there=True), remote=remote)
        _refuse_failed(sent.failed)
        repo.stage_cache.push(remote)
        _send_occasions(workspace, repo.cloud.get_remote(remote))
        return f"Sent {_files(len(sent.transferred))}; another clone gets them by `pipeline pull`."


def pull(workspace: Workspace, remote: str | None = None) -> str:
    """Fetch what the remote has of every stage that ever ran; a line that says how much was new.

    Raises:
        PipelineError: there is no such remote, or it refused.
    """
    with _opened(workspace) as repo:
        repo.stage_cache.pull(remote)
        _fetch_occasions(workspace, repo.cloud.get_remote(remote))
        count = 0
        # What is in a folder is known when the list of its files is there.
        for _ in range(2):
            fetched = repo.cloud.pull(_outputs(workspace, there=False), remote=remote)
            _refuse_failed(fetched.failed)
            count += len(fetched.transferred)
        return f"Fetched {_files(count)}; what was trained with them is known here now."


def _send_occasions(workspace: Workspace, remote: Any) -> None:
    """Say beside the outputs when, where and from which code they were made."""
    for path in (workspace.scratch / OCCASIONS).glob("*/*.json"):
        target = remote.fs.join(remote.path, OCCASIONS, path.parent.name, path.name)
        if not remote.fs.exists(target):
            remote.fs.makedirs(remote.fs.parent(target), exist_ok=True)
            remote.fs.put_file(str(path), target)


def _fetch_occasions(workspace: Workspace, remote: Any) -> None:
    source = remote.fs.join(remote.path, OCCASIONS)
    for path in remote.fs.find(source) if remote.fs.exists(source) else ():
        *_, run, name = remote.fs.parts(path)
        target = workspace.scratch / OCCASIONS / run / name
        # A remote is others' to write to: a name is a name, whatever stands in it.
        if not target.exists() and re.fullmatch(r"[0-9a-f]{32}/[0-9a-f]{12}\.json", f"{run}/{name}"):
            with atomic(target) as temporary:
                remote.fs.get_file(path, str(temporary))


@contextmanager
def _opened(workspace: Workspace) -> Iterator[Any]:
    """The DVC repository in `workspace`; what DVC or the remote's library raises, in a sentence."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(workspace.root)) as repo:
            yield repo
    except PipelineError:
        raise
    except DvcException as error:
        raise PipelineError(" ".join(str(error).split())) from error
    except Exception as error:
        # Each kind of remote has a library, and each library its exceptions.
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise PipelineError(f"The DVC remote can't be used: {said}") from error


def _outputs(workspace: Workspace, there: bool) -> "set[HashInfo]":
    """The outputs that the run cache tells of, and their files, that the cache has (`there`) or lacks."""
    import yaml
    from dvc_data.hashfile.hash_info import HashInfo

    cache = workspace.dvc_cache()
    digests = set()
    for path in (cache / "runs").glob("*/*/*"):
        entry = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        digests |= {out["md5"] for out in entry["outs"]}

    def place(digest: str) -> Path:
        return cache / "files" / "md5" / digest[:2] / digest[2:]

    for folder in [digest for digest in digests if digest.endswith(".dir") and place(digest).exists()]:
        digests |= {file["md5"] for file in json.loads(place(folder).read_text(encoding="utf-8"))}
    return {HashInfo("md5", digest) for digest in digests if place(digest).exists() == there}


def _refuse_failed(failed: "set[HashInfo]") -> None:
    if failed:
        raise PipelineError(
            f"The DVC remote did not take or give {_files(len(failed))}: the same command tries them again."
        )


def _files(count: int) -> str:
    return f"{count:,} file{'s' if count != 1 else ''} of the cache"
