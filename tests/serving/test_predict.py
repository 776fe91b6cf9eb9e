"""The answers of the server about pictures."""

import io

import numpy as np
import pytest
from in_thread import running
from PIL import Image

from photos import photo, png


def form(*files):
    """Files of a form, as (name, content): its body and its type."""
    parts = [
        f'--limit\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    return b"".join(parts) + b"--limit--\r\n", "multipart/form-data; boundary=limit"


def test_a_picture_as_the_body_is_answered_with_its_probabilities_and_the_model(client, digits, served):
    images, labels = digits
    for number in range(20):
        answer = client.post("/predict", png(images[number]))
        assert answer.status == 200
        expected = served.classifier.probabilities(images[number : number + 1])[0]
        assert answer.json["label"] == str(labels[number])
        assert list(answer.json["probabilities"]) == list("0123456789")
        assert np.allclose(list(answer.json["probabilities"].values()), expected, atol=1e-6)
        assert answer.json["probability"] == max(answer.json["probabilities"].values())
        assert answer.json["model"] == {"name": "digits", "version": "3", "run": "digits-mlp"}
        assert "seen" not in answer.json


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_formats_are_recognised_by_their_content_whatever_the_declared_type(client, digits, kind):
    buffer = io.BytesIO()
    Image.fromarray(digits[0][7]).save(buffer, kind)
    answer = client.post("/predict", buffer.getvalue(), Content_Type="application/x-www-form-urlencoded")
    assert (answer.status, answer.json["label"]) == (200, str(digits[1][7]))


def test_a_photo_is_read_as_the_reader_reads_it(client, digits, served):
    draw = np.random.default_rng(0)
    for number in range(10):
        content = png(photo(digits[0][number], draw))
        [expected] = served.classify(served.read(content)[None])
        for path in ("/predict", "/predict?seen", "/explain"):
            answer = client.post(path, content).json
            assert answer["label"] == expected.label
            assert np.allclose(list(answer["probabilities"].values()), expected.probabilities, atol=1e-6)


def test_each_of_several_files_gets_its_answer_or_its_error(client, digits):
    images, labels = digits
    content, kind = form(
        ("seven.png", png(images[7])), ("notes.png", b"not a picture"), ("../../etc/passwd", png(images[3]))
    )
    answer = client.post("/predict", content, Content_Type=kind)
    assert answer.status == 200
    first, second, third = answer.json["items"]
    assert (first["file"], first["label"]) == ("seven.png", str(labels[7]))
    assert second["file"] == "notes.png"
    assert "is not a PNG" in second["error"]
    # A name is returned as it is, and used for nothing else.
    assert (third["file"], third["label"]) == ("../../etc/passwd", str(labels[3]))


def test_a_form_without_a_readable_picture_is_refused(client):
    content, kind = form(("a.png", b"text"))
    assert client.post("/predict", content, Content_Type=kind).status == 400
    answer = client.post("/predict", b"--limit--\r\n", Content_Type=kind)
    assert answer.status == 400
    assert "no files" in answer.json["error"]
    assert client.post("/predict", b"nonsense", Content_Type=kind).status == 400
    assert client.post("/predict", b"nonsense", Content_Type="multipart/form-data").status == 400


def test_too_many_files_are_refused(client):
    content, kind = form(*((f"{number}.png", b"x") for number in range(65)))
    answer = client.post("/predict", content, Content_Type=kind)
    assert answer.status == 400
    assert "64" in answer.json["error"]


def test_the_image_that_the_model_saw_is_returned_on_request(client, digits, served):
    import base64

    answer = client.post("/predict?seen", png(digits[0][5]))
    content = base64.b64decode(answer.json["seen"].removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.array(Image.open(io.BytesIO(content))), digits[0][5])


def test_the_explanation_map_points_at_the_digit(client, digits):
    answer = client.post("/explain", png(digits[0][1]))
    assert answer.status == 200
    assert answer.json["label"] == str(digits[1][1])
    cells = np.array(answer.json["occlusion"])
    assert cells.shape == (14, 14)
    ink = digits[0][1].reshape(14, 2, 14, 2).max(axis=(1, 3)) > 0
    beside, steps = np.pad(ink, 1), (-1, 0, 1)
    near = np.any([np.roll(beside, (y, x), (0, 1)) for y in steps for x in steps], axis=0)[1:-1, 1:-1]
    assert np.abs(cells[~near]).max() < 1e-3
    assert cells[ink].mean() > 0.2


def test_the_model_is_described(client):
    answer = client.get("/model").json
    assert answer["name"] == "digits"
    assert answer["classes"] == list("0123456789")
    assert answer["test_accuracy"] == [0.96, 0.95, 0.97]
    assert answer["drawn"] is True
    assert answer["card"] is False


def test_metrics_count_requests_pictures_and_batches(served, digits):
    with running(served) as client:
        for number in range(3):
            client.post("/predict", png(digits[0][number]))
        client.post("/predict", b"nothing")
        text = client.get("/metrics").content.decode()
    assert 'pipeline_requests_total{route="predict",status="200"} 3' in text
    assert 'pipeline_requests_total{route="predict",status="400"} 1' in text
    assert 'pipeline_request_seconds_count{route="predict"} 4' in text
    assert f'pipeline_pictures_total{{label="{digits[1][0]}"}} 1' in text
    assert "pipeline_pictures_refused_total 1" in text
    assert "pipeline_batch_size_sum 3.000000" in text
    assert 'pipeline_model_info{name="digits",version="3",run="digits-mlp"} 1' in text
