"""Share trainings between clones: send DVC's run cache, with all outputs, to a remote, and fetch it.

DVC's own `push --run-cache` sends the entries of the run cache, but only the outputs of the workspace: the
remote would have the entries of a sweep's trials without their models.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.workspace import Workspace, atomic, files_in, object_in
from pipeline.console import count
from pipeline.errors import PipelineError
from pipeline.tracking.occasion import OCCASIONS
from pipeline.trials.run_cache import past_outputs

if TYPE_CHECKING:
    from dvc_data.hashfile.hash_info import HashInfo


def push(workspace: Workspace, remote: str | None = None) -> str:
    """Send the cached outputs of every stage that ever ran, and return a line that says how many files.

    Raises:
        PipelineError: If there is no such remote, or it can't be used.
    """
    with _opened(workspace) as repo:
        # The outputs come first, so that the remote never has an entry without its outputs.
        sent = repo.cloud.push(_outputs(workspace, cached=True), remote=remote)
        _refuse_failed(sent.failed)
        repo.stage_cache.push(remote)
        _send_occasions(workspace, repo.cloud.get_remote(remote))
        return f"Sent {_files(len(sent.transferred))}; another clone gets them with `pipeline pull`."


def pull(workspace: Workspace, remote: str | None = None) -> str:
    """Fetch the outputs of every stage that ever ran, and return a line that says how many files.

    Raises:
        PipelineError: If there is no such remote, or it can't be used.
    """
    with _opened(workspace) as repo:
        repo.stage_cache.pull(remote)
        _fetch_occasions(workspace, repo.cloud.get_remote(remote))
        number = 0
        # The first pass fetches the lists of files in folders, the second one those files.
        for _ in range(2):
            fetched = repo.cloud.pull(_outputs(workspace, cached=False), remote=remote)
            _refuse_failed(fetched.failed)
            number += len(fetched.transferred)
        return f"Fetched {_files(number)}; the remote's trainings can now be restored here."


def _send_occasions(workspace: Workspace, remote: Any) -> None:
    """Send the occasions, which say when, where and from which code the outputs were made."""
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
        # Others can write to the remote: don't trust the names of its files.
        if not target.exists() and re.fullmatch(r"[0-9a-f]{32}/[0-9a-f]{12}\.json", f"{run}/{name}"):
            with atomic(target) as temporary:
                remote.fs.get_file(path, str(temporary))


@contextmanager
def _opened(workspace: Workspace) -> Iterator[Any]:
    """Open the DVC repository in `workspace`, and turn errors of the remote's library into messages."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(workspace.root)) as repo:
            yield repo
    except (PipelineError, DvcException):
        raise
    except Exception as error:
        # Each kind of remote has its own library with its own exceptions.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise PipelineError(f"The DVC remote can't be used: {reason}") from error


def _outputs(workspace: Workspace, cached: bool) -> "set[HashInfo]":
    """Return the outputs in the run cache's entries, and the files in them, that are `cached` or are not."""
    from dvc_data.hashfile.hash_info import HashInfo

    cache = workspace.dvc_cache()
    digests = {digest for digest, _, _ in past_outputs(cache)}
    digests |= {digest for folder in digests for digest in files_in(cache, folder).values()}
    return {HashInfo("md5", digest) for digest in digests if object_in(cache, digest).exists() == cached}


def _refuse_failed(failed: "set[HashInfo]") -> None:
    if failed:
        raise PipelineError(
            f"The transfer of {_files(len(failed))} to or from the DVC remote failed: run the same command "
            "to try again."
        )


def _files(number: int) -> str:
    return f"{count(number, 'file')} of the cache"
