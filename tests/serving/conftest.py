"""A small classifier of digits, and a server of it."""

import numpy as np
import pytest
from drawn_page import FLAGS, Page
from in_thread import READER, running, until, write_onnx
from PIL import Image

from browsing import running_browser
from photos import png
from pipeline.config.section import ReaderSection
from pipeline.data.reader import read_picture
from pipeline.serving import connection, guard
from pipeline.serving.reference import Resolved
from pipeline.serving.served import Served


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's digits, enlarged and read as pictures: uint8 (700, 28, 28) and their labels."""
    from sklearn.datasets import load_digits

    reader = ReaderSection(**READER)
    known = load_digits()
    large = [
        Image.fromarray((image * 15.9).astype(np.uint8)).resize((48, 48), Image.Resampling.BICUBIC)
        for image in known.images[:700]
    ]
    images = [read_picture(png(np.pad(np.array(image), 16)), reader) for image in large]
    return np.stack(images), known.target[:700]


@pytest.fixture(scope="session")
def onnx_file(digits, tmp_path_factory):
    """A classifier that reads digits correctly, trained in a second."""
    from sklearn.neural_network import MLPClassifier

    images, labels = digits
    network = MLPClassifier((32,), max_iter=30, random_state=0, learning_rate_init=0.01, batch_size=64)
    with pytest.warns(match="converge"):
        network.fit(images.reshape(len(images), -1) / 255, labels)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(path, *zip(network.coefs_, network.intercepts_, strict=True))
    return path


@pytest.fixture(scope="session")
def served(onnx_file):
    return Served.load(Resolved(onnx_file, "digits", "3", (0.96, 0.95, 0.97)))


@pytest.fixture
def impatient(monkeypatch):
    """The server waits for a slow client for less than the usual ten seconds and more."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.5)


@pytest.fixture
def still_answers(client, digits):
    """Whatever happened, the next picture is answered, and nothing of the last request is kept."""
    yield
    until(lambda: client.get("/health").status == 200)
    answer = client.post("/predict", png(digits[0][3]))
    assert (answer.status, answer.json["label"]) == (200, str(digits[1][3]))


@pytest.fixture(scope="module")
def client(served):
    with running(served) as found:
        yield found


@pytest.fixture(scope="module")
def browser(chromium, tmp_path_factory):
    with running_browser(chromium, tmp_path_factory.mktemp("chromium"), *FLAGS, logs=True) as browser:
        yield browser


@pytest.fixture
def page(browser, client):
    found = Page(browser)
    found.open(client)
    found.complaints()
    yield found
    assert [complaint for complaint in found.complaints() if "status of 400" not in complaint] == []
