"""What the gate is told about a run: its predictions, its files, its code, and the images in each slice."""

import json
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.artifacts.processed import Count, Dataset, write_dataset
from pipeline.artifacts.workspace import SPLITS, Workspace, sha256
from pipeline.errors import PipelineError
from pipeline.registry import evidence
from pipeline.registry.evidence import Evidence, evaluate, members
from pipeline.registry.gate import Predictions
from pipeline.tracking.identity import describe_split
from pipeline.tracking.stored import Broken, Stored

CLASSES = ("a", "b", "c")
TAGS = {
    "git.commit": "c" * 40,
    "git.dirty": "true",
    "pipeline.reports_sha256": "r",
    "pipeline.weights_sha256": "f" * 64,
    "pipeline.occasion.1": f"commit cccccccc, weights {'f' * 12}",
    "pipeline.occasion.2": f"commit cccccccc, weights {'f' * 12}, reproduced",
    "pipeline.occasion.3": f"commit cccccccc, weights {'e' * 12}",
    "another": f"weights {'f' * 12}",
}


@pytest.fixture
def folder(tmp_path):
    """The artifacts of a run."""
    folder = tmp_path / "run"
    folder.mkdir()
    run = {"id": "1", "name": "letters-1", "config": {}, "data": {"name": "letters", "classes": CLASSES}}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "predictions.csv").write_text("label,predicted,confidence\na,a,0.9\nb,a,0.5\nc,c,0.75\n")
    (folder / "model.onnx").write_bytes(2_500_000 * b"x")
    return folder


def of(folder, tags=TAGS, params=None, metrics=None, model=True, broken=()):
    info = SimpleNamespace(run_name="letters-1", run_id="1", status="FINISHED")
    data = SimpleNamespace(tags=tags, params=params or {}, metrics=metrics or {})
    run = SimpleNamespace(info=info, data=data)
    return Evidence(None, Stored(run, folder, *((object(), folder) if model else (None, None)), 9, broken))


def test_predictions_are_read_with_the_classes_as_numbers(folder):
    found = of(folder).predictions()
    assert (found.name, found.classes, found.bins) == ("letters-1", CLASSES, 15)
    assert (found.labels.tolist(), found.predicted.tolist()) == ([0, 1, 2], [0, 0, 2])
    assert found.confidence.tolist() == [0.9, 0.5, 0.75]
    assert of(folder, params={"evaluate.calibration_bins": "8"}).predictions().bins == 8


# A quote that opens a field makes one field of all lines after it.
@pytest.mark.parametrize(
    "content",
    [
        "label,predicted\na,a\n",
        "label,predicted,confidence\na,d,1\n",
        "label,predicted,confidence\na,a\n",
        "label,predicted,confidence\na,a,nan\n",
        "label,predicted,confidence\n",
        "",
        'x\n"' + 50_000 * "a,a\n",
        None,
    ],
)
def test_damaged_predictions_are_refused(folder, content):
    (folder / "predictions.csv").unlink()
    if content is not None:
        (folder / "predictions.csv").write_text(content)
    with pytest.raises(PipelineError, match=r"predictions\.csv has no valid predictions"):
        of(folder).predictions()


@pytest.mark.parametrize("data", [{}, {"name": "letters"}, []])
def test_a_run_of_an_older_version_is_refused(folder, data):
    run = {"id": "1", "name": "letters-1", "config": {}, "data": data}
    (folder / "run.json").write_text(json.dumps(run))
    with pytest.raises(PipelineError, match=r"no run\.json with its data: .* older version"):
        of(folder).predictions()


def test_a_run_that_was_not_evaluated_is_refused(folder):
    with pytest.raises(PipelineError, match="letters-1 has no results: it was not evaluated"):
        of(folder, tags={}).predictions()


def test_what_mlflow_lacks_of_a_model_is_named(folder):
    with pytest.raises(PipelineError, match="MLflow has no model of the run letters-1"):
        _ = of(folder, model=False).model
    (folder / "model.onnx").unlink()
    with pytest.raises(PipelineError, match="MLflow has no ONNX file of the run letters-1"):
        _ = of(folder).onnx
    assert of(folder).test == "unknown"
    accuracy = "The model of the run letters-1, test accuracy 97.34 %."
    assert of(folder, metrics={"test_accuracy": 0.97344}).card == accuracy
    assert of(folder).card.endswith("test accuracy 0.00 %.")


@pytest.fixture
def repository(tmp_path):
    """A repository with one commit."""
    root = tmp_path / "repository"
    person = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    subprocess.run(["git", "init", "-q", root], check=True)
    commit = ("commit", "-q", "--allow-empty", "-m", "first")
    subprocess.run(["git", "-C", root, *person, *commit], check=True)
    return Workspace(root)


def test_the_facts_tell_the_code_the_size_and_the_trainings_with_the_same_weights(
    folder, repository, monkeypatch
):
    measured = []
    monkeypatch.setattr(evidence, "milliseconds", lambda path: measured.append(path) or 0.5)
    found = of(folder).facts(repository)
    assert (found.status, found.commit, found.dirty) == ("FINISHED", "c" * 40, "true")
    assert (found.is_in_git, found.has_patch, found.files, found.occasions) == (False, False, 9, 2)
    assert (found.megabytes, found.milliseconds, measured) == (2.5, 0.5, [folder / "model.onnx"])
    head = subprocess.check_output(["git", "-C", repository.root, "rev-parse", "HEAD"], text=True).strip()
    (folder / "code").mkdir()
    (folder / "code" / "uncommitted.diff").touch()
    found = of(folder, tags={"git.commit": head}).facts(repository)
    assert (found.status, found.is_in_git, found.has_patch, found.occasions) == (
        "NOT EVALUATED",
        True,
        True,
        0,
    )
    assert found.dirty == "unknown"
    assert not of(folder, tags={}).facts(repository).is_in_git


def test_a_damaged_model_is_not_loaded_to_measure_it(folder, repository, monkeypatch):
    monkeypatch.setattr(evidence, "load", None)
    broken = (Broken("model.onnx is damaged", folder / "model.onnx", "model.onnx", "m-1", "", ""),)
    found = of(folder, broken=broken).facts(repository)
    assert (found.milliseconds, found.problems) == (None, ["model.onnx is damaged"])


def test_the_time_is_the_median_for_one_image_without_the_first_ones(monkeypatch):
    seconds = iter([*20 * [9.0], *101 * [0.002], *99 * [5.0]])
    clock = [0.0]

    def predict(images):
        assert images.shape == (1, 2, 2)
        clock[0] += next(seconds)

    def load(path, fast=False):
        assert fast  # As it is served.
        return SimpleNamespace(description=SimpleNamespace(image_shape=(2, 2)), probabilities=predict)

    monkeypatch.setattr(evidence, "load", load)
    monkeypatch.setattr(evidence.time, "perf_counter", lambda: clock[0])
    assert evidence.milliseconds(None) == pytest.approx(2)
    assert next(seconds, None) is None


def test_a_run_that_mlflow_lacks_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(evidence, "search", lambda client, wanted: [])
    with pytest.raises(PipelineError, match="MLflow has no run with the id 1234: `pipeline sync`"):
        evidence.find("1234", None, tmp_path)


def test_a_slice_has_the_images_of_its_classes_or_with_its_numbers(repository):
    labels = np.array([0, 1, 2, 0])
    predictions = Predictions("letters-1", CLASSES, labels, labels, np.ones(4), 15)
    (repository.root / "dark.txt").write_text("0\n3 1\n")
    slices = {"dark": "dark.txt", "vowels": ("a",), "most": ("a", "c")}
    found = members(slices, predictions, repository)
    assert {name: of.tolist() for name, of in found.items()} == {
        "dark": [True, True, False, True],
        "vowels": [True, False, False, True],
        "most": [True, False, True, True],
    }
    for content, reason in (
        ("4", "not from 0 to 3"),
        ("-1", "not from 0 to 3"),
        ("x", "not a list of test image numbers"),
        (30 * "9", "not a list of test image numbers"),
        ("", r"promotion\.slices\.dark contains no test images"),
    ):
        (repository.root / "dark.txt").write_text(content)
        with pytest.raises(PipelineError, match=reason):
            members({"dark": "dark.txt"}, predictions, repository)
    with pytest.raises(PipelineError, match="not a list of test image numbers"):
        members({"dark": "dark\0.txt"}, predictions, repository)


class Classifier:
    """Answers with the image's first pixel as the class, with probabilities that don't add up to one."""

    def __init__(self, classes=CLASSES, image_shape=(2, 2)):
        self.description = SimpleNamespace(classes=classes, image_shape=image_shape)

    def probabilities(self, images):
        assert images.shape[1:] == (2, 2)
        return np.where(np.arange(3) == images[:, :1, 0], 0.9, 0.3).astype(np.float32)


def test_a_model_is_evaluated_on_the_candidates_images_or_it_is_said_why_not(folder, repository, monkeypatch):
    def evaluated(test, **about):
        monkeypatch.setattr(evidence, "load", lambda path: Classifier(**about))
        return evaluate(of(folder, params={"evaluate.calibration_bins": "8"}), test, repository)

    split = repository.processed / "test"
    split.mkdir(parents=True)
    np.save(split / "images.npy", np.array([[2, 0, 0, 0], [1, 0, 0, 0]], np.uint8))
    np.save(split / "labels.npy", np.array([2, 0], np.int32))
    digests = {name: sha256(split / f"{name}.npy") for name in ("images", "labels")}
    counts, digests_of = dict.fromkeys(SPLITS, Count(2, (1, 0, 1))), dict.fromkeys(SPLITS, digests)
    made = Dataset("letters", CLASSES, (2, 2), {}, 1.0, counts, 0.5, 0.5, {}, digests_of)
    write_dataset(repository, made)
    test = describe_split(made, "test")["sha256"]

    found = evaluated(test)
    assert (found.name, found.classes, found.bins) == ("letters-1", CLASSES, 8)
    assert (found.labels.tolist(), found.predicted.tolist()) == ([2, 0], [2, 1])
    assert found.confidence == pytest.approx([0.6, 0.6])

    with pytest.raises(PipelineError, match="the candidate's are not in data/processed"):
        evaluated("another")
    for about, difference in (
        ({"image_shape": (4, 1)}, r"takes images of shape \(4, 1\)"),
        ({"classes": CLASSES[:2]}, f"does not know {CLASSES[2]}"),
        ({"classes": (*CLASSES, "d")}, "knows d"),
        ({"classes": (*CLASSES[:2], "renamed")}, f"does not know {CLASSES[2]}, but knows renamed"),
        ({"classes": CLASSES[::-1]}, "has the same classes in another order"),
        ({"classes": (*CLASSES, *"123456")}, "knows 1, 2, 3, 4, 5 and 1 more"),
    ):
        why = rf"{difference}, so it can't be evaluated on these\. Promote under another --name"
        with pytest.raises(PipelineError, match=f"^different: letters-1 {why}$"):
            evaluated(test, **about)
    np.save(split / "labels.npy", np.array([1, 0], np.int32))
    with pytest.raises(PipelineError, match="dvc repro"):
        evaluated(test)
    repository.dataset.unlink()
    with pytest.raises(PipelineError, match="the candidate's are not in data/processed"):
        evaluated(test)
