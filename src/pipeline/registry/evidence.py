"""Evidence: what a run reached and what its files are, as the gate judges it."""

import csv
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.onnx_file import load
from pipeline.artifacts.processed import read_dataset, read_split, refuse_damaged_splits
from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError
from pipeline.registry.gate import Facts, Judged
from pipeline.tracking.evaluation_run import EVALUATION_TAG, REPORTS_TAG
from pipeline.tracking.identity import describe_split, read_run
from pipeline.tracking.lineage import git
from pipeline.tracking.mlflow_run import ID_TAG, TEST_TAG
from pipeline.tracking.occasion_tags import OCCASION_TAG
from pipeline.tracking.store import search
from pipeline.tracking.stored import Stored, fetch

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

_DEFAULT_BINS = 15
_TIMED = 200  # predictions of one image
_WARM_UP = 20


@dataclass(frozen=True)
class Evidence:
    """A run with its files at hand."""

    client: "MlflowClient"
    stored: Stored

    @property
    def run(self) -> "Run":
        """As MLflow has it."""
        return self.stored.run

    @property
    def name(self) -> str:
        """What MLflow calls the run."""
        return str(self.run.info.run_name)

    @property
    def data(self) -> str:
        """The name of the data set."""
        return str(self._run_json["data"]["name"])

    @property
    def model(self) -> "LoggedModel":
        """As MLflow has it.

        Raises:
            PipelineError: it does not.
        """
        if self.stored.model is None:
            raise PipelineError(
                f"MLflow has no model of the run {self.name}: `pipeline sync` sends what it lacks."
            )
        return self.stored.model

    @property
    def card(self) -> str:
        """What people read at a version of the model."""
        path = self.stored.folder / "model_card.md"
        if path.is_file():
            return path.read_text(encoding="utf-8")
        accuracy = 100 * self.run.data.metrics.get("test_accuracy", 0.0)
        return f"The model of the run {self.name}, test accuracy {accuracy:.2f} %."

    @property
    def test(self) -> str:
        """The digest of the test split that it was evaluated on."""
        return str(self.run.data.tags.get(TEST_TAG, "unknown"))

    @property
    def onnx(self) -> Path:
        """The model's file as it is served.

        Raises:
            PipelineError: MLflow has none.
        """
        found = self.stored.model_file(".onnx")
        if found is None:
            raise PipelineError(
                f"MLflow has no ONNX file of the run {self.name}: it is from before there was one."
            )
        return found

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the model's order."""
        return tuple(self._run_json["data"]["classes"])

    @property
    def _run_json(self) -> dict[str, Any]:
        return read_run(self.stored.folder / "run.json")

    @property
    def bins(self) -> int:
        """Of its calibration error."""
        return int(self.run.data.params.get("evaluate.calibration_bins", _DEFAULT_BINS))

    def judged(self) -> Judged:
        """What the model said of the test images when it was evaluated.

        Raises:
            PipelineError: it was not evaluated, or what it said is damaged.
        """
        if REPORTS_TAG not in self.run.data.tags:
            raise PipelineError(f"The run {self.name} was not evaluated: it has no results.")
        path, classes = self.stored.folder / "predictions.csv", self.classes
        number = {name: index for index, name in enumerate(classes)}
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            labels, predicted = (
                np.array([number[row[key]] for row in rows]) for key in ("label", "predicted")
            )
            confidence = np.array([float(row["confidence"]) for row in rows])
        except (OSError, ValueError, KeyError) as error:
            raise PipelineError(f"{path} holds no predictions ({error!r}): run `pipeline sync`.") from None
        return Judged(self.name, classes, labels, predicted, confidence, self.bins)

    def facts(self, repository: Workspace) -> Facts:
        """What else is known; the time of a prediction is measured now."""
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
            # A damaged file may not even load.
            milliseconds=None if self.stored.problems else _milliseconds(path),
        )


def find(identity: str, client: "MlflowClient", folder: Path) -> Evidence:
    """The evidence of a training, by the pipeline's id of it.

    Raises:
        PipelineError: MLflow does not have it.
        MlflowException: the store can't be reached.
    """
    runs = [
        run
        for run in search(client, f"tags.`{ID_TAG}` = '{identity}'")
        if EVALUATION_TAG not in run.data.tags
    ]
    if not runs:
        raise PipelineError(f"MLflow has no run with the id {identity}: `pipeline sync` sends what it lacks.")
    return Evidence(client, fetch(client, runs[0], folder))


def evaluate(model: Evidence, test: str, workspace: Workspace) -> Judged:
    """What a model says of other test images than those that it was evaluated on.

    Args:
        model: of which the ONNX file is asked.
        test: the digest of the test split.
        workspace: that has the images in data/processed.

    Raises:
        PipelineError: the workspace has others, or the model is of others' shape or classes.
    """
    dataset = read_dataset(workspace)
    if describe_split(dataset, "test")["sha256"] != test:
        raise PipelineError(
            "others, and those of the candidate are not in data/processed: `dvc repro` with its "
            "configuration puts them there"
        )
    classifier = load(model.onnx)
    about = classifier.description
    if (about.classes, about.image_shape) != (tuple(dataset.classes), tuple(dataset.image_shape)):
        raise PipelineError(
            f"others: {model.name} knows images of shape {about.image_shape} in {len(about.classes)} "
            "classes, and can't be asked. Promote under another --name"
        )
    refuse_damaged_splits(workspace, dataset, "test")
    images, labels = read_split(workspace, "test")
    scores = classifier.probabilities(np.asarray(images).reshape(-1, *dataset.image_shape))
    exact = scores / scores.sum(axis=1, keepdims=True, dtype=np.float64)
    return Judged(
        model.name,
        about.classes,
        np.asarray(labels, np.int64),
        exact.argmax(axis=1),
        exact.max(axis=1),
        model.bins,
    )


def members(
    slices: Mapping[str, tuple[str, ...] | str], judged: Judged, repository: Workspace
) -> dict[str, NDArray[np.bool_]]:
    """Which test images each slice of conf/promotion has: bool (n,), at least one true.

    Raises:
        PipelineError: a class or a number does not exist, a file can't be read, or a slice is empty.
    """
    return {name: _members(name, of, judged, repository) for name, of in slices.items()}


def _members(
    name: str, of: tuple[str, ...] | str, judged: Judged, repository: Workspace
) -> NDArray[np.bool_]:
    key, found = f"promotion.slices.{name}", np.zeros(len(judged.labels), np.bool_)
    if isinstance(of, str):
        path = (repository.root / of).resolve()
        if not path.is_relative_to(repository.root.resolve()):
            raise PipelineError(f"{key}: {of} is outside of the project.")
        try:
            numbers = np.array([int(line) for line in path.read_text(encoding="utf-8").split()], np.int64)
        except (OSError, ValueError) as error:
            raise PipelineError(f"{key}: {of} is no list of numbers of test images: {error}") from None
        if ((numbers < 0) | (numbers >= len(found))).any():
            raise PipelineError(f"{key}: {of} has numbers outside of 0 to {len(found) - 1:,}.")
        found[numbers] = True
    else:
        if unknown := sorted(set(of) - set(judged.classes)):
            raise PipelineError(
                f"{key}: there is no class {unknown[0]!r}; there are {', '.join(judged.classes)}."
            )
        found = np.isin(judged.labels, [judged.classes.index(one) for one in of])
    if not found.any():
        raise PipelineError(f"{key} has no test image.")
    return found


def _milliseconds(path: Path) -> float:
    """The median time of a prediction of one image, in one thread."""
    classifier = load(path, fast=True)
    image = np.zeros((1, *classifier.description.image_shape), np.uint8)
    seconds = []
    for _ in range(_WARM_UP + _TIMED):
        start = time.perf_counter()
        classifier.probabilities(image)
        seconds.append(time.perf_counter() - start)
    return 1000 * median(seconds[_WARM_UP:])
