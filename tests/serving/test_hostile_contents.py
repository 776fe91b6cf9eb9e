"""Invalid or malicious pictures and tensors are refused in a sentence."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from in_thread import running
from PIL import Image

from photos import png

pytestmark = pytest.mark.usefixtures("impatient", "still_answers")


def bomb(width: int, height: int) -> bytes:
    """A PNG file of a few bytes whose header declares this many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
        + chunk(b"IEND", b"")
    )


PAYLOADS = {
    "nothing": b"",
    "text": b"this is a text",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><rect width="9" height="9"/></svg>',
    "html": b"<!doctype html><script>alert(1)</script>",
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "bomb": bomb(100_000, 100_000),
    "too large": bomb(1001, 1000),
    "truncated": png(np.arange(784, dtype=np.uint8).reshape(28, 28))[:-30],
    "npy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    "one colour": png(np.zeros((28, 28), np.uint8)),
}


@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_content_that_is_no_picture_is_refused_in_a_sentence(client, name, path):
    answer = client.post(path, PAYLOADS[name], Content_Type="image/png")
    assert answer.status == 400
    assert answer.json["error"].startswith("The picture ")
    assert "Traceback" not in answer.json["error"]


def test_the_metadata_of_a_photo_are_not_in_the_answer(client, digits):
    exif = Image.Exif()
    exif[0x010E] = exif[0x9286] = "<script>alert(1)</script>"
    buffer = io.BytesIO()
    Image.fromarray(digits[0][8]).save(buffer, "JPEG", exif=exif, comment=b"<script>alert(2)</script>")
    answer = client.post("/predict?seen", buffer.getvalue())
    assert (answer.status, answer.json["label"]) == (200, str(digits[1][8]))
    assert b"script" not in answer.content


INFER = "/v2/models/digits/infer"


def tensor(data, shape=(1, 28, 28), datatype="UINT8", name="images") -> str:
    return json.dumps({"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]})


REFUSED = {
    "not JSON": "{",
    "deep": "[" * 100_000,
    "deep data": '{"inputs": [{"name": "images", "shape": [1], "datatype": "UINT8", "data": ' + "[" * 50_000,
    "no inputs": "{}",
    "NaN": tensor([float("nan")] * 784),
    "infinite": tensor([float("inf")] * 784),
    "floats": tensor([0.5] * 784),
    "pixels over 255": tensor([256] * 784),
    "negative": tensor([-1] * 784),
    "too large for any integer": tensor([10**30] * 784),
    "texts": tensor(["1"] * 784),
    # An array of texts would need 240 GB.
    "one long text": tensor(["x" * 500_000] + [""] * 120_000),
    "booleans": tensor([True] * 784),
    "too few": tensor([0] * 783),
    "ragged": tensor([[0, 1], [0]]),
    "shape": tensor([0] * 784, (1, 784)),
    "no shape": tensor([0] * 784, ()),
    "negative shape": tensor([0] * 784, (-1, 28, 28)),
    "huge shape": tensor([0], (2**62, 28, 28)),
    "no images": tensor([], (0, 28, 28)),
    "many images": tensor([0], (65, 28, 28)),
    "float tensor": tensor([0.5] * 784, datatype="FP32"),
    "another input": tensor([0] * 784, name="pixels"),
    "null": tensor([None] * 784),
    "two inputs": json.dumps({"inputs": json.loads(tensor([0] * 784))["inputs"] * 2}),
    "duplicate output": json.dumps(
        json.loads(tensor([0] * 784)) | {"outputs": [{"name": "secrets"}]},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tensors_that_are_not_images_are_refused(client, name):
    answer = client.post(INFER, REFUSED[name])
    assert answer.status == 400, answer.content
    assert len(answer.json["error"]) < 500


def test_the_json_of_a_tensor_has_its_own_size_limit(served):
    with running(served, body_mib=8) as client:
        assert client.post(INFER, b" " * (5 * 2**20)).status == 413


@pytest.mark.parametrize("length", ["-1", "1000000", "abc", "9" * 5000])
def test_a_wrong_length_of_the_json_is_refused(client, length):
    answer = client.post(INFER, b"{}" + b"\0" * 784, Inference_Header_Content_Length=length)
    assert answer.status == 400


def test_bytes_that_do_not_fit_the_shape_are_refused(client):
    described = {"name": "images", "shape": [1, 28, 28], "datatype": "UINT8"}
    for size, sent in ((784, 783), (783, 784), (783, 783), (10**12, 784)):
        message = json.dumps({"inputs": [described | {"parameters": {"binary_data_size": size}}]}).encode()
        answer = client.post(INFER, message + b"\0" * sent, Inference_Header_Content_Length=str(len(message)))
        assert answer.status == 400
