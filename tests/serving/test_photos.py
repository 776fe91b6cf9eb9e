"""Photos of digits are read as well as the original images; predictions equal those of the evaluation."""

import csv
import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from in_thread import running
from PIL import Image

from photos import photo
from pipeline.artifacts.onnx_file import load
from pipeline.artifacts.processed import read_split
from pipeline.artifacts.workspace import Workspace
from pipeline.config.compose import compose
from pipeline.environment import use_threads
from pipeline.serving.inputs import items
from pipeline.serving.predict import answers
from pipeline.serving.reference import resolve
from pipeline.serving.served import Served
from pipeline.stages import evaluate, fetch, preprocess, train
from pipeline.tracking.identity import complete, identify, write_run

pytestmark = pytest.mark.slow
use_threads(1)
CONF = Path(__file__).parents[2] / "conf"
PHOTOS = 2000


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("mnist"))
    config = compose(CONF, ["train.epochs=2", "evaluate.robustness=0"])
    fetch.run(config, workspace)
    preprocess.run(config, workspace)
    result = train.run(config, workspace)
    write_run(workspace.run, complete(identify(config, workspace, {}), result, workspace.model))
    evaluate.run(config, workspace)
    return workspace


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def predicted(trained, folder):
    """For each of the first test images: its label, and the predictions for it and for a photo of it."""
    images, labels = read_split(trained, "test")
    draw = np.random.default_rng(0)
    for name in ("images", "photos"):
        (folder / name).mkdir()
    for number, image in enumerate(images[:PHOTOS].reshape(-1, 28, 28)):
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(photo(image, draw)).save(folder / "photos" / f"{number}.png")
    classifier = load(trained.onnx, fast=True)
    reader = classifier.description.reader
    found = [
        list(answers(classifier, items([str(folder / name)], reader), 1)) for name in ("images", "photos")
    ]
    return labels[:PHOTOS], *found


def test_photos_are_classified_correctly_as_often_as_the_test_images(predicted):
    labels, images, photos = predicted
    right = [
        np.mean(
            [
                answer.best and answer.best[0][0] == str(label)
                for answer, label in zip(kind, labels, strict=True)
            ]
        )
        for kind in (images, photos)
    ]
    assert right[0] > 0.93
    assert right[1] > right[0] - 0.015


@pytest.mark.parametrize("route", ["/predict", "/predict?seen"])  # the second one is the page's
def test_the_server_reads_photos_as_the_command_does(trained, predicted, folder, route):
    _, _, photos = predicted
    with running(Served.load(resolve(None, trained))) as client, closing(client.connect()) as connection:
        for number, expected in enumerate(photos):
            connection.request("POST", route, (folder / "photos" / f"{number}.png").read_bytes())
            answer = json.loads(connection.getresponse().read())
            assert ("error" in answer) == bool(expected.error), number
            if not expected.error:
                assert answer["label"] == expected.best[0][0], number
                assert answer["probability"] == pytest.approx(expected.best[0][1], rel=1e-6), number


def test_predictions_are_those_of_the_evaluation(trained, predicted):
    _, images, _ = predicted
    with trained.predictions.open(newline="") as file:
        evaluated = list(csv.DictReader(file))[:PHOTOS]
    assert [answer.best[0][0] for answer in images] == [row["predicted"] for row in evaluated]
    confidence = [float(row["confidence"]) for row in evaluated]
    # The table has six digits after the point, each rounded.
    assert [answer.best[0][1] for answer in images] == pytest.approx(confidence, abs=1.5e-6)
