"""The files that MLflow has of a run, held against the digests that the run's tags have for them."""

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

# Of a run and of a logged model: the SHA-256 of files, by their paths among the artifacts.
FILES_TAG = "pipeline.files"
_LONGEST = 6000  # characters; MLflow refuses longer tags
_THREADS = 4


def files_tag(part: str, digests: Mapping[str, str]) -> dict[str, str]:
    """A tag with the digests of files, by their paths among the artifacts.

    Of very many the first ones by name are in it, as MLflow's tags have an end.

    Args:
        part: of the run, to which the files belong.
        digests: the SHA-256 of each file.
    """
    some = dict(sorted(digests.items()))
    while len(text := json.dumps(some, ensure_ascii=False, separators=(",", ":"))) > _LONGEST:
        some.popitem()
    return {f"{FILES_TAG}.{part}": text}


def digests_below(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file in a folder, by its path in it."""
    return {path.relative_to(folder).as_posix(): sha256(path) for path in folder.rglob("*") if path.is_file()}


@dataclass(frozen=True)
class Broken:
    """A file that MLflow does not have as it was recorded."""

    text: str
    path: Path
    name: str  # among the artifacts
    owner: str  # the id of the run, or of the logged model
    digest: str  # the SHA-256 that it should have
    place: str  # where MLflow has it


@dataclass(frozen=True)
class Stored:
    """What MLflow has of a run, on this machine."""

    run: "Run"
    folder: Path  # with the run's artifacts
    model: "LoggedModel | None"
    model_folder: Path | None  # with those of the model
    checked: int  # files
    broken: Sequence[Broken]
    lost: str = ""  # a sentence, if MLflow has no model of a run that ended

    @property
    def problems(self) -> list[str]:
        """A sentence for each."""
        return [*([self.lost] if self.lost else []), *(found.text for found in self.broken)]

    @property
    def broken_names(self) -> set[str]:
        """Those files of the run, among its artifacts, that are not as they were recorded."""
        return {found.name for found in self.broken if found.owner == self.run.info.run_id}

    def model_file(self, suffix: str) -> Path | None:
        """The model's file with this ending, such as ".onnx"."""
        found = sorted(self.model_folder.rglob(f"*{suffix}")) if self.model_folder else []
        return found[0] if found else None


def fetch(client: "MlflowClient", run: "Run", folder: Path, remote: bool = True) -> Stored:
    """Have the files of a run on this machine, and hash them.

    Args:
        client: of the store that has the run.
        run: of a training, or of an evaluation.
        folder: for what is not on this machine yet; files of the local store are read where they lie.
        remote: whether to download at all; without, what lies elsewhere is not checked.

    Raises:
        MlflowException: the store can't be reached.
    """
    name, run_id = run.info.run_name, run.info.run_id
    model = logged_model_of(client, run.info.experiment_id, run_id)
    wanted: list[Broken] = []
    files, model_folder = _at_hand(run.info.artifact_uri, folder / "run", remote), None
    if files:
        wanted += _wanted(files, run.info.artifact_uri, _digests(run.data.tags), f"of the run {name}", run_id)
    if model:
        model_folder = _at_hand(model.artifact_location, folder / "model", remote)
        # A run that is older than the tag has the digest of the Keras model.
        older = {"data/model.keras": run.data.tags.get("pipeline.model_sha256", "")}
        if model_folder:
            digests = _digests(model.tags) or older
            uri, what = model.artifact_location, f"of the model of {name}"
            wanted += _wanted(model_folder, uri, digests, what, str(model.model_id))
    has_lost = not model and "pipeline.model_sha256" in run.data.tags
    lost = f"MLflow has no model of the run {name}." if has_lost else ""
    return Stored(run, files or folder, model, model_folder, len(wanted), _broken(wanted), lost)


def _wanted(folder: Path, uri: str, digests: Mapping[str, str], what: str, owner: str) -> list[Broken]:
    # Not where it was downloaded to, which is gone when somebody reads of it.
    place = str(folder) if _is_here(uri) else uri
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
    """What `files_tag` made of all parts."""
    found: dict[str, str] = {}
    for key, value in tags.items():
        if key.startswith(f"{FILES_TAG}."):
            found |= json.loads(value)
    return found


def _at_hand(uri: str, folder: Path, remote: bool) -> Path | None:
    """A folder with the artifacts at `uri`; None: they are elsewhere, and were not to be downloaded."""
    if _is_here(uri):
        return Path(unquote(urlsplit(uri).path))
    if not remote:
        return None
    from mlflow.artifacts import download_artifacts

    folder.mkdir(parents=True, exist_ok=True)
    return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder)))


def _is_here(uri: str) -> bool:
    return urlsplit(uri).scheme in ("", "file")
