"""Check the files that MLflow has of a run against the digests in the run's tags."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts.workspace import sha256
from pipeline.tracking.database import local_folder
from pipeline.tracking.mlflow_run import MAX_TEXT, logged_model_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

# A tag of runs and logged models: the SHA-256 of files, by their paths among the artifacts.
FILES_TAG = "pipeline.files"
_MODEL_TAG = "pipeline.model_sha256"  # of the runs whose models were logged
_THREADS = 4


def files_tag(part: str, digests: Mapping[str, str]) -> dict[str, str]:
    """Return a tag with the digests of files, by their paths among the artifacts.

    If there are too many for a tag, it contains the first ones in the order of their names.
    """
    some = dict(sorted(digests.items()))
    while len(text := json.dumps(some, ensure_ascii=False, separators=(",", ":"))) > MAX_TEXT:
        some.popitem()
    return {f"{FILES_TAG}.{part}": text}


def digests_below(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder, by its relative path."""
    return {path.relative_to(folder).as_posix(): sha256(path) for path in folder.rglob("*") if path.is_file()}


@dataclass(frozen=True)
class Broken:
    """A file that is missing in MLflow or differs from what was recorded."""

    text: str  # the problem, as a message
    path: Path  # the local file
    name: str  # its path among the artifacts
    owner: str  # the id of the run or of the logged model
    digest: str  # the SHA-256 that it should have
    place: str  # its address in MLflow


@dataclass(frozen=True)
class Stored:
    """The files that MLflow has of a run, available on this machine."""

    run: "Run"
    folder: Path  # with the run's artifacts
    model: "LoggedModel | None"
    model_folder: Path | None  # with the model's artifacts
    checked: int  # the number of files that were checked
    broken: Sequence[Broken]
    lost: str = ""  # a message, if MLflow has no model of a run that has ended, or no digests of its files

    @property
    def problems(self) -> list[str]:
        """A message for each problem."""
        return [*([self.lost] if self.lost else []), *(found.text for found in self.broken)]

    @property
    def broken_names(self) -> set[str]:
        """The paths of the run's own artifacts that are missing or damaged."""
        return {found.name for found in self.broken if found.owner == self.run.info.run_id}

    def model_file(self, suffix: str) -> Path | None:
        """Return the model's file with this suffix, such as ".onnx", or None."""
        found = sorted(self.model_folder.rglob(f"*{suffix}")) if self.model_folder else []
        return found[0] if found else None


def without_model(run: "Run") -> str:
    """Say that MLflow has no model of a run, and how to get it back if there was one."""
    if _MODEL_TAG not in run.data.tags:
        return f"MLflow has no model of the run {run.info.run_name} ({run.info.status})."
    return (
        f"MLflow no longer has the model of the run {run.info.run_name}: `pipeline sync` sends it again if "
        "it is in models/; otherwise, a sweep's command, or `python -m pipeline` with the run's values, does."
    )


def fetch(client: "MlflowClient", run: "Run", folder: Path, remote: bool = True) -> Stored:
    """Download the files of a run if they are not on this machine, and check them.

    Downloads go into `folder`; files of a local store are read where they are. Without `remote`, files that
    are not on this machine are not checked.

    Raises:
        MlflowException: If the store can't be reached.
    """
    name, run_id = run.info.run_name, run.info.run_id
    model = logged_model_of(client, run.info.experiment_id, run_id)
    address, tags = run.info.artifact_uri, run.data.tags
    files, wanted = _artifacts(address, folder / "run", remote, tags, f"of the run {name}", run_id)
    model_folder = None
    if model:
        address, owner, what = model.artifact_location, str(model.model_id), f"of the model of {name}"
        model_folder, more = _artifacts(address, folder / "model", remote, model.tags, what, owner)
        wanted += more
    has_lost = not model and _MODEL_TAG in tags
    lost = [without_model(run)] if has_lost else []
    lost += [
        f"The tag {key} of the run {name} or its model was changed in MLflow: it has no digests any more."
        for key, value in (*tags.items(), *(model.tags.items() if model else ()))
        if key.startswith(f"{FILES_TAG}.") and _parsed(value) is None
    ]
    return Stored(run, files or folder, model, model_folder, len(wanted), _broken(wanted), " ".join(lost))


def _artifacts(
    address: str, download: Path, remote: bool, tags: Mapping[str, str], what: str, owner: str
) -> tuple[Path | None, list[Broken]]:
    """Return a local folder with the artifacts at an address, and the files that it should have.

    Without `remote`, artifacts that would have to be downloaded have no folder, and no files.
    """
    folder = local_folder(address)
    # Messages don't name the folder of a download, because it will be gone when somebody reads them.
    place = folder or address
    if folder is None and remote:
        from mlflow.artifacts import download_artifacts

        download.mkdir(parents=True, exist_ok=True)
        folder = Path(download_artifacts(artifact_uri=address, dst_path=str(download)))
    if folder is None:
        return None, []
    return folder, [
        Broken(f"{path} {what}", folder / path, path, owner, digest, f"{place}/{path}")
        for path, digest in recorded_digests(tags).items()
    ]


def _broken(wanted: Sequence[Broken]) -> list[Broken]:
    with ThreadPoolExecutor(_THREADS) as threads:
        found = threads.map(lambda one: sha256(one.path) if one.path.is_file() else None, wanted)
        return [
            replace(one, text=f"{one.text} is {'missing' if digest is None else 'damaged'}: {one.place}")
            for one, digest in zip(wanted, found, strict=True)
            if digest != one.digest
        ]


def recorded_digests(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the digests in the tags that `files_tag` made, for all parts."""
    found: dict[str, str] = {}
    for key, value in tags.items():
        if key.startswith(f"{FILES_TAG}."):
            found |= _parsed(value) or {}
    return found


def _parsed(value: str) -> dict[str, str] | None:
    """Return the digests in one tag; None if they are not there, since anybody can edit a tag in MLflow."""
    try:
        digests = json.loads(value)
    except ValueError:
        return None
    is_whole = isinstance(digests, dict) and all(isinstance(digest, str) for digest in digests.values())
    return digests if is_whole else None
