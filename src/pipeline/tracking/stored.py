"""Check the files that MLflow has of a run against the digests in the run's tags."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pipeline.artifacts.workspace import sha256
from pipeline.tracking.mlflow_run import logged_model_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

# A tag of runs and logged models: the SHA-256 of files, by their paths among the artifacts.
FILES_TAG = "pipeline.files"
_MAX_TAG = 6000  # characters; MLflow rejects longer tags
_THREADS = 4


def files_tag(part: str, digests: Mapping[str, str]) -> dict[str, str]:
    """Return a tag with the digests of files, by their paths among the artifacts.

    If there are too many for a tag, it contains the first ones in the order of their names.

    Args:
        part: The part of the run to which the files belong.
        digests: The SHA-256 of each file.
    """
    some = dict(sorted(digests.items()))
    while len(text := json.dumps(some, ensure_ascii=False, separators=(",", ":"))) > _MAX_TAG:
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
    lost: str = ""  # a message, if MLflow has no model of a run that has ended

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


def fetch(client: "MlflowClient", run: "Run", folder: Path, remote: bool = True) -> Stored:
    """Download the files of a run if they are not on this machine, and check them.

    Args:
        client: The client of the store that has the run.
        run: The run of a training or of an evaluation.
        folder: The folder for downloads; files of a local store are read where they are.
        remote: Whether to download; if False, files that are not on this machine are not checked.

    Raises:
        MlflowException: If the store can't be reached.
    """
    name, run_id = run.info.run_name, run.info.run_id
    model = logged_model_of(client, run.info.experiment_id, run_id)
    wanted: list[Broken] = []
    files, model_folder = _local_folder(run.info.artifact_uri, folder / "run", remote), None
    if files:
        wanted += _wanted(files, run.info.artifact_uri, _digests(run.data.tags), f"of the run {name}", run_id)
    if model:
        model_folder = _local_folder(model.artifact_location, folder / "model", remote)
        # A run from before this tag existed has only the digest of the Keras model.
        older = {"data/model.keras": run.data.tags.get("pipeline.model_sha256", "")}
        if model_folder:
            digests = _digests(model.tags) or older
            uri, what = model.artifact_location, f"of the model of {name}"
            wanted += _wanted(model_folder, uri, digests, what, str(model.model_id))
    has_lost = not model and "pipeline.model_sha256" in run.data.tags
    lost = f"MLflow has no model of the run {name}." if has_lost else ""
    return Stored(run, files or folder, model, model_folder, len(wanted), _broken(wanted), lost)


def _wanted(folder: Path, uri: str, digests: Mapping[str, str], what: str, owner: str) -> list[Broken]:
    # Messages don't name the folder of a download, because it will be gone when somebody reads them.
    place = str(folder) if _is_local(uri) else uri
    return [
        Broken(f"{path} {what}", folder / path, path, owner, digest, f"{place}/{path}")
        for path, digest in digests.items()
    ]


def _broken(wanted: Sequence[Broken]) -> list[Broken]:
    with ThreadPoolExecutor(_THREADS) as threads:
        found = threads.map(lambda one: sha256(one.path) if one.path.is_file() else None, wanted)
        return [
            replace(one, text=f"{one.text} is {'missing' if digest is None else 'damaged'}: {one.place}")
            for one, digest in zip(wanted, found, strict=True)
            if digest != one.digest
        ]


def _digests(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the digests in the tags that `files_tag` made, for all parts."""
    found: dict[str, str] = {}
    for key, value in tags.items():
        if key.startswith(f"{FILES_TAG}."):
            found |= json.loads(value)
    return found


def _local_folder(uri: str, folder: Path, remote: bool) -> Path | None:
    """Return a local folder with the artifacts at `uri`; None if they would have to be downloaded."""
    if _is_local(uri):
        return Path(unquote(urlsplit(uri).path))
    if not remote:
        return None
    from mlflow.artifacts import download_artifacts

    folder.mkdir(parents=True, exist_ok=True)
    return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder)))


def _is_local(uri: str) -> bool:
    return urlsplit(uri).scheme in ("", "file")
