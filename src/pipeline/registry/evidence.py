"""Evidence: collect what the gate needs to know about a run, its results and its files."""

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.onnx_file import load
from pipeline.artifacts.processed import read_dataset, read_split, refuse_damaged_splits
from pipeline.artifacts.workspace import Workspace
from pipeline.console import percent, printable
from pipeline.errors import PipelineError
from pipeline.registry.gate import Facts, Predictions
from pipeline.results.lookup import UnknownRunError, is_training
from pipeline.tracking.evaluation_run import REPORTS_TAG
from pipeline.tracking.identity import describe_split, read_run
from pipeline.tracking.lineage import git
from pipeline.tracking.mlflow_run import ID_TAG, OCCASION_TAG, TEST_TAG
from pipeline.tracking.store import search
from pipeline.tracking.stored import Stored, fetch, without_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

_DEFAULT_BINS = 15
_TIMED = 200  # predictions of one image
_WARM_UP = 20
_NAMED = 5  # classes that are named


@dataclass(frozen=True)
class Evidence:
    """A run in MLflow, with local copies of its files."""

    client: "MlflowClient"
    stored: Stored

    @property
    def run(self) -> "Run":
        """The run in MLflow."""
        return self.stored.run

    @property
    def name(self) -> str:
        """The name of the run in MLflow."""
        return str(self.run.info.run_name)

    @property
    def data(self) -> str:
        """The name of the data set."""
        return str(self._run_json["data"]["name"])

    @property
    def model(self) -> "LoggedModel":
        """The logged model in MLflow.

        Raises:
            PipelineError: If MLflow does not have it.
        """
        if self.stored.model is None:
            raise PipelineError(without_model(self.run))
        return self.stored.model

    @property
    def card(self) -> str:
        """The description of the model's version in the registry: its model card, if there is one."""
        path = self.stored.folder / "model_card.md"
        if path.is_file():
            return path.read_text(encoding="utf-8", errors="replace")
        accuracy = percent(self.run.data.metrics.get("test_accuracy", 0.0))
        return f"The model of the run {self.name}, test accuracy {accuracy}."

    @property
    def test(self) -> str:
        """The digest of the test split that the model was evaluated on."""
        return str(self.run.data.tags.get(TEST_TAG, "unknown"))

    @property
    def onnx(self) -> Path:
        """The path of the ONNX file.

        Raises:
            PipelineError: If MLflow does not have it.
        """
        found = self.model and self.stored.model_file(".onnx")
        if found is None:
            raise PipelineError(
                f"MLflow has no ONNX file of the run {self.name}: it was trained before there were any."
            )
        return found

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the model's order."""
        return tuple(self._run_json["data"]["classes"])

    @property
    def _run_json(self) -> dict[str, Any]:
        path = self.stored.folder / "run.json"
        run = read_run(path) if path.is_file() else {}
        if not {"name", "classes"} <= set(run.get("data", ())):
            raise PipelineError(
                f"MLflow's run {self.name} has no run.json with its data: it did not finish or is of an "
                "older version. Train it again."
            )
        return run

    @property
    def bins(self) -> int:
        """The number of bins of the calibration error."""
        return int(self.run.data.params.get("evaluate.calibration_bins", _DEFAULT_BINS))

    def predictions(self) -> Predictions:
        """Read the model's predictions for the test images, made when it was evaluated.

        Raises:
            PipelineError: If the run was not evaluated, or the predictions are damaged.
        """
        if REPORTS_TAG not in self.run.data.tags:
            raise PipelineError(f"The run {self.name} has no results: it was not evaluated.")
        path, classes = self.stored.folder / "predictions.csv", self.classes
        number = {name: index for index, name in enumerate(classes)}
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            labels, predicted = (
                np.array([number[row[key]] for row in rows]) for key in ("label", "predicted")
            )
            confidence = np.array([float(row["confidence"]) for row in rows])
            if not (rows and np.isfinite(confidence).all()):
                raise ValueError("rows or numbers are missing")  # noqa: TRY301
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise PipelineError(
                f"{path} has no valid predictions ({error!r}): run `pipeline sync`."
            ) from None
        return Predictions(self.name, classes, labels, predicted, confidence, self.bins)

    def facts(self, repository: Workspace) -> Facts:
        """Collect the facts about the run besides its predictions; the latency is measured now."""
        tags, path = self.run.data.tags, self.onnx
        commit = tags.get("git.commit", "unknown")
        weights = str(tags.get("pipeline.weights_sha256", "unknown"))[:12]
        occasions = [value for key, value in tags.items() if key.startswith(f"{OCCASION_TAG}.")]
        return Facts(
            status=self.run.info.status if REPORTS_TAG in tags else "NOT EVALUATED",
            commit=commit,
            is_in_git=git(repository.home, "cat-file", "-e", f"{commit}^{{commit}}") is not None,
            dirty=tags.get("git.dirty", "unknown"),
            has_patch=(self.stored.folder / "code" / "uncommitted.diff").is_file(),
            files=self.stored.checked,
            problems=self.stored.problems,
            occasions=sum(f"weights {weights}" in summary for summary in occasions),
            megabytes=path.stat().st_size / 1e6,
            # Don't load a damaged file.
            milliseconds=None if self.stored.problems else milliseconds(path),
        )


def find(identity: str, client: "MlflowClient", folder: Path) -> Evidence:
    """Find a training in MLflow and fetch its files.

    Raises:
        UnknownRunError: If MLflow has no such run.
        MlflowException: If the store can't be reached.
    """
    runs = [run for run in search(client, f"tags.`{ID_TAG}` = '{identity}'") if is_training(run)]
    if not runs:
        raise UnknownRunError(
            identity, f"MLflow has no run with the id {identity}: `pipeline sync` sends what is missing."
        )
    return Evidence(client, fetch(client, runs[0], folder))


def evaluate(model: Evidence, test: str, workspace: Workspace) -> Predictions:
    """Return a model's predictions for other test images than those that it was evaluated on.

    The model's ONNX file is used on the images in data/processed, whose test split must have the digest
    `test`.

    Raises:
        PipelineError: If the workspace has other images, or the model takes images of another shape or has
            other classes. The message continues the gate's line about the test images.
    """
    # A trial leaves no images in the workspace.
    dataset = read_dataset(workspace) if workspace.dataset.exists() else None
    if dataset is None or describe_split(dataset, "test")["sha256"] != test:
        raise PipelineError(
            "different, and the candidate's are not in data/processed: run `dvc repro` with the candidate's "
            "configuration"
        )
    classifier = load(model.onnx)
    about = classifier.description
    if about.image_shape != tuple(dataset.image_shape):
        raise PipelineError(_foreign(model.name, f"takes images of shape {about.image_shape}"))
    if about.classes != tuple(dataset.classes):
        raise PipelineError(_foreign(model.name, _other_classes(about.classes, dataset.classes)))
    refuse_damaged_splits(workspace, dataset, "test")
    images, labels = read_split(workspace, "test")
    scores = classifier.probabilities(np.asarray(images).reshape(-1, *dataset.image_shape))
    exact = scores / scores.sum(axis=1, keepdims=True, dtype=np.float64)
    return Predictions(
        model.name,
        about.classes,
        np.asarray(labels, np.int64),
        exact.argmax(axis=1),
        exact.max(axis=1),
        model.bins,
    )


def _foreign(name: str, what: str) -> str:
    return f"different: {name} {what}, so it can't be evaluated on these. Promote under another --name"


def _other_classes(own: Sequence[str], candidates: Sequence[str]) -> str:
    """Return how a model's classes differ from the candidate's."""
    both = (
        ("does not know", [name for name in candidates if name not in own]),
        ("knows", [name for name in own if name not in candidates]),
    )
    found = [f"{how} {_listed(names)}" for how, names in both if names]
    return ", but ".join(found) or "has the same classes in another order"


def _listed(names: Sequence[str]) -> str:
    named = ", ".join(map(printable, names[:_NAMED]))
    return f"{named} and {len(names) - _NAMED:,} more" if len(names) > _NAMED else named


def members(
    slices: Mapping[str, tuple[str, ...] | str], predictions: Predictions, repository: Workspace
) -> dict[str, NDArray[np.bool_]]:
    """Return the test images in each slice of conf/promotion, as bool (n,) with at least one true value.

    Raises:
        PipelineError: If a class or image number does not exist, a file can't be read, or a slice is empty.
    """
    return {name: _members(name, of, predictions, repository) for name, of in slices.items()}


def _members(
    name: str, of: tuple[str, ...] | str, predictions: Predictions, repository: Workspace
) -> NDArray[np.bool_]:
    key, found = f"promotion.slices.{name}", np.zeros(len(predictions.labels), np.bool_)
    if isinstance(of, str):
        try:
            path = (repository.root / of).resolve()
            if not path.is_relative_to(repository.root.resolve()):
                raise PipelineError(f"{key}: {of} is outside the project.")
            numbers = np.array([int(line) for line in path.read_text(encoding="utf-8").split()], np.int64)
        except (OSError, ValueError, OverflowError) as error:
            raise PipelineError(f"{key}: {of!r} is not a list of test image numbers: {error}") from None
        if ((numbers < 0) | (numbers >= len(found))).any():
            raise PipelineError(f"{key}: {of} has numbers that are not from 0 to {len(found) - 1:,}.")
        found[numbers] = True
    else:
        if unknown := sorted(set(of) - set(predictions.classes)):
            raise PipelineError(
                f"{key}: there is no class {unknown[0]!r}; the classes are {', '.join(predictions.classes)}."
            )
        found = np.isin(predictions.labels, [predictions.classes.index(one) for one in of])
    if not found.any():
        raise PipelineError(f"{key} contains no test images.")
    return found


def milliseconds(path: Path) -> float:
    """Measure the median time to predict one image in one thread."""
    classifier = load(path, fast=True)
    image = np.zeros((1, *classifier.description.image_shape), np.uint8)
    seconds = []
    for _ in range(_WARM_UP + _TIMED):
        start = time.perf_counter()
        classifier.probabilities(image)
        seconds.append(time.perf_counter() - start)
    return 1000 * median(seconds[_WARM_UP:])
