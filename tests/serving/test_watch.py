"""A promoted version takes over between two requests; one that can't answer is refused."""

import functools
import shutil
import threading
import time

import numpy as np
import pytest
from in_thread import DESCRIPTION, running, until, write_onnx

from photos import png
from pipeline.errors import PipelineError
from pipeline.serving import watch
from pipeline.serving.reference import Resolved
from pipeline.serving.shared_model import SharedModel


class Registry:
    """What the registry says of the champion."""

    def __init__(self, path):
        self.source = Resolved(path, "digits", "3")
        self.error = None

    def find(self) -> Resolved:
        if self.error:
            raise self.error
        return self.source


@pytest.fixture
def registry(onnx_file):
    return Registry(onnx_file)


@pytest.fixture
def shared(tmp_path):
    return SharedModel(tmp_path)


@pytest.fixture
def client(served, registry, shared, monkeypatch):
    monkeypatch.setattr(watch, "SECONDS", 0.05)
    shared.put_copy(served.source)
    background = functools.partial(watch.watch, find=registry.find, keep=shared.put)
    with running(served, background=background) as found:
        yield found


def random_model(path, **description):
    """A valid model with random weights."""
    draw, classes = np.random.default_rng(0).normal, len(description.get("classes", DESCRIPTION["classes"]))
    first, second = (draw(size=(784, 4)), np.zeros(4)), (draw(size=(4, classes)), np.zeros(classes))
    write_onnx(path, first, second, DESCRIPTION | description)
    return path


def counted(client, name: str) -> int:
    lines = client.get("/metrics").content.decode().splitlines()
    [found] = [line for line in lines if line.startswith(f"pipeline_{name} ")]
    return int(found.split()[1])


def test_a_new_version_takes_over_and_no_request_is_lost(client, registry, shared, digits, tmp_path):
    versions, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            answer = client.post("/predict", png(digits[0][len(versions) % 700]))
            versions.append((answer.status, answer.json["model"]["version"]))

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    until(lambda: len(versions) > 20)
    registry.source = Resolved(random_model(tmp_path / "four.onnx"), "digits", "4")
    until(lambda: (200, "4") in versions)
    before = len(versions)
    until(lambda: len(versions) > before + 20)
    stop.set()
    for thread in asking:
        thread.join()
    assert {status for status, _ in versions} == {200}
    assert {version for _, version in versions[before + 3 :]} == {"4"}
    assert counted(client, "model_switches_total") == 1
    assert client.get("/v2/models/digits").json["versions"] == ["4"]
    # A process that starts now uses it from the beginning.
    assert shared.get() == registry.source
    # A rollback is a switch like any other.
    registry.source = Resolved(registry.source.path, "digits", "3")
    until(lambda: client.get("/model").json["version"] == "3")


def test_a_number_that_is_given_again_to_another_model_is_a_new_version(client, registry, digits, tmp_path):
    # As after a registered model was deleted in MLflow, and promoted again.
    registry.source = Resolved(random_model(tmp_path / "again.onnx"), "digits", "3", model_id="other")
    until(lambda: counted(client, "model_switches_total") == 1)
    assert client.get("/model").json["version"] == "3"
    weights = client.get("/model").json
    registry.source = Resolved(registry.source.path, "digits", "4", model_id="other")
    until(lambda: client.get("/model").json["version"] == "4")
    assert client.get("/model").json == weights | {"version": "4"}


@pytest.mark.parametrize("fault", ["damaged", "missing", "fewer classes", "other classes", "not a number"])
def test_a_version_that_cannot_answer_is_refused_once_and_the_old_one_stays(
    client, registry, digits, onnx_file, tmp_path, caplog, fault
):
    path = tmp_path / "four.onnx"
    if fault == "damaged":
        path.write_bytes(onnx_file.read_bytes()[:-1000])
    elif fault == "fewer classes":
        random_model(path, classes=["a", "b"])
    elif fault == "other classes":
        random_model(path, classes=list("abcdefghij"))
    elif fault == "not a number":
        nan = np.full((784, 4), np.nan)
        write_onnx(path, (nan, np.zeros(4)), (np.ones((4, 10)), np.zeros(10)))
    registry.source = Resolved(path, "digits", "4")
    until(lambda: counted(client, "model_refusals_total") == 1)
    answer = client.post("/predict", png(digits[0][7]))
    assert (answer.json["label"], answer.json["model"]["version"]) == (str(digits[1][7]), "3")
    [record] = [record.message for record in caplog.records if "is refused" in record.message]
    assert "Version 4 of digits is refused, version 3 stays in use" in record
    if fault == "other classes":
        assert "it has 10 classes (a, b, c, d, e, f, g, h, i, j) and" in record
        assert "started with 10 classes (0, 1, 2," in record
    # The next version is tried again.
    shutil.copy(onnx_file, tmp_path / "five.onnx")
    registry.source = Resolved(tmp_path / "five.onnx", "digits", "5")
    until(lambda: client.get("/model").json["version"] == "5")
    assert counted(client, "model_refusals_total") == 1


def test_an_unreachable_registry_does_not_stop_the_server(client, registry, digits, caplog):
    for error in (PipelineError("MLflow can't be reached."), OSError(28, "No space left on device")):
        registry.error = error
        until(lambda text=str(error): text in caplog.text)
        assert client.post("/predict", png(digits[0][7])).status == 200
    time.sleep(0.3)
    # Each error is reported once.
    assert len([record for record in caplog.records if "again every" in record.message]) == 2
    registry.error = None
    registry.source = Resolved(registry.source.path, "digits", "4")
    until(lambda: client.get("/model").json["version"] == "4")
