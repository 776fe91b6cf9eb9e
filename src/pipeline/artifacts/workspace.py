"""The paths of all artifacts, and atomic writing: a file with its final name is always complete."""

import csv
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.errors import PipelineError

SPLITS = ("train", "validation", "test")
# How the paths of the outputs that MLflow shows begin; of data/processed, these are those of `data_report`.
SHOWN = ("models/", "reports/", *(f"data/processed/{name}" for name in ("samples", "findings", "figures")))
PROCESS = r"\d{1,7}"  # the id of a process in the name of a temporary file; a date is longer
RAW_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def origin_of(split: str) -> str:
    """Return the prefix of the raw arrays of a split; validation images come from those for training."""
    return "test" if split == "test" else "train"


class _Path:
    """A path in each workspace, relative to its root."""

    def __init__(self, relative: str) -> None:
        self._relative = relative

    def __get__(self, workspace: "Workspace", kind: type["Workspace"]) -> Path:
        return workspace.root / self._relative


@dataclass(frozen=True)
class Workspace:
    """A folder in which the stages run: the repository, or a trial that shares its DVC cache."""

    root: Path

    # Written by compose.
    params = _Path("params.yaml")
    # Written by fetch: the four RAW_ARRAYS as .npy.
    raw = _Path("data/raw")
    # Written by preprocess: one folder per split with images.npy and labels.npy.
    processed = _Path("data/processed")
    dataset = _Path("data/processed/dataset.json")
    training_dataset = _Path("data/processed/training.json")
    samples = _Path("data/processed/samples.png")
    findings = _Path("data/processed/findings.csv")
    data_figures = _Path("data/processed/figures")
    # Written by train.
    model = _Path("models/model.keras")
    onnx = _Path("models/model.onnx")
    history = _Path("models/history.csv")
    run = _Path("models/run.json")
    # Written by evaluate.
    metrics = _Path("reports/metrics.json")
    predictions = _Path("reports/predictions.csv")
    per_class = _Path("reports/per_class.csv")
    label_issues = _Path("reports/label_issues.csv")
    probabilities = _Path("reports/probabilities.npy")
    model_card = _Path("reports/model_card.md")
    figures = _Path("reports/figures")
    # Written by hand, and by DVC.
    dvc_yaml = _Path("dvc.yaml")
    dvc_lock = _Path("dvc.lock")

    @property
    def data_report(self) -> list[Path]:
        """The files in data/processed that are for people, as far as they exist."""
        figures = sorted(self.data_figures.glob("*"))
        return [path for path in (self.samples, self.findings, *figures) if path.exists()]

    def dvc_cache(self) -> Path:
        """Return the folder of DVC's cache, from the DVC configuration of this workspace."""
        # Most processes do not need DVC.
        from dvc.config import Config as DvcConfig

        folder = self.root / ".dvc"
        return Path(DvcConfig(str(folder)).get("cache", {}).get("dir") or folder / "cache")

    @cached_property
    def home(self) -> Path:
        """The repository that owns this workspace: itself, or the one whose hidden folder it is in.

        Trials are in the repository's `.pipeline`, temporary DVC experiments in its `.dvc/tmp`;
        both record their runs in the repository.
        """
        parts = self.root.absolute().parts
        hidden = [i for i, part in enumerate(parts) if part in (".dvc", ".pipeline")]
        return Path(*parts[: hidden[0]]) if hidden else self.root.absolute()

    @property
    def is_temporary(self) -> bool:
        """Whether this is the workspace of a trial or a temporary experiment, which is removed after it."""
        return self.home != self.root.absolute()

    @property
    def scratch(self) -> Path:
        """The pipeline's own files that outlive a command: unsent runs, trials, locks."""
        return self.home / ".pipeline"

    @property
    def sweeps(self) -> Path:
        """One folder for each sweep, with its report."""
        return self.scratch / "sweeps"

    def refuse_foreign_environment(self, current: Path) -> None:
        """Refuse to use this workspace from inside another clone, whose environment was copied.

        Raises:
            PipelineError: If `current` is in a clone other than that of this package, which may be a copy.
        """
        for folder in (current, *current.parents):
            if (folder / "src" / "pipeline" / "artifacts" / "workspace.py").exists():
                if folder.resolve() != self.root.resolve():
                    self.refuse_copy()
                    raise PipelineError(
                        f"This Python environment belongs to {self.root}, but you are in {folder}: "
                        "run `make setup` here and use its .venv."
                    )
                return

    def refuse_copy(self) -> None:
        """Refuse a package that `pip install .` copied out of its clone, away from conf/ and dvc.yaml.

        Raises:
            PipelineError: If this workspace has no dvc.yaml.
        """
        if not self.dvc_yaml.is_file():
            if (self.root / "conf").is_dir():
                raise PipelineError(f"{self.dvc_yaml} is missing: `git checkout dvc.yaml` restores it.")
            raise PipelineError(
                f"The package runs as a copy in {self.root}, where there is no dvc.yaml: in the clone, run "
                "`pip install --editable .`, or run `make setup` and use its .venv."
            )


def object_in(cache: Path, md5: str) -> Path:
    """Return the file of an object in DVC's cache; the MD5 of a folder's list of files ends in .dir."""
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def files_in(cache: Path, md5: str) -> dict[str, str]:
    """Return the MD5 of each file in a cached folder; none if `md5` is a file, or the list is damaged."""
    if not md5.endswith(".dir"):
        return {}
    try:
        listed = json.loads(object_in(cache, md5).read_text(encoding="utf-8"))
        return {file["relpath"]: file["md5"] for file in listed}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def here() -> Workspace:
    """Return the workspace that this package belongs to, whatever the current directory."""
    return Workspace(Path(__file__).resolve().parents[3])


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path` for a new file or folder, and rename it to `path` on success.

    Files left behind by killed processes are removed. On an exception, the new content is removed and the old
    content, if any, is unchanged.

    Raises:
        PipelineError: If the new content is a file, and there is a folder at `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    left_over = re.compile(rf"\.{re.escape(path.name)}\.({PROCESS})\.tmp(\..*)?")
    for sibling in path.parent.iterdir():
        if found := left_over.fullmatch(sibling.name):
            process = int(found[1])
            if process == os.getpid() or not is_alive(process):
                remove(sibling)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        yield temporary
        if path.is_dir():
            if not temporary.is_dir() and not path.is_symlink():
                raise PipelineError(f"{path} is a folder, and has to be a file: move it out of the way.")
            remove(path)
        os.replace(temporary, path)
    finally:
        remove(temporary)


def is_alive(process: int) -> bool:
    """Return whether there is a process with this id, whatever its owner."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def write_text(path: Path, text: str) -> None:
    """Write a complete UTF-8 file, or nothing."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a complete CSV file, or nothing."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file completely, or not at all."""
    with atomic(target) as temporary:
        shutil.copyfile(source, temporary)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
