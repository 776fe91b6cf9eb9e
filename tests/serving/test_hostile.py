"""Clients that are slow, broken or hostile: each is ended, and the server answers the others."""

import io
import json
import socket
import struct
import time
import zlib
from contextlib import suppress

import numpy as np
import pytest
from in_thread import running, until
from PIL import Image

from photos import png
from pipeline.serving import connection, guard, server


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """What takes ten seconds and more takes less here."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.5)


@pytest.fixture(autouse=True)
def lives(client, digits):
    """Whatever happened, the next picture is answered, and nothing of the last request is kept."""
    yield
    until(lambda: client.get("/health").status == 200)
    answer = client.post("/predict", png(digits[0][3]))
    assert (answer.status, answer.json["label"]) == (200, str(digits[1][3]))


def talk(client, *parts: bytes, pause: float = 0.0, limit: float = 20.0) -> bytes:
    """Send parts with pauses, and read until the server closes or `limit` seconds have passed."""
    received = b""
    place = ("127.0.0.1", client.port)
    with suppress(ConnectionResetError, BrokenPipeError), socket.create_connection(place, limit) as raw:
        for part in parts:
            raw.sendall(part)
            time.sleep(pause)
        while more := raw.recv(65536):
            received += more
    return received


def head(length: int | str, path: str = "/predict", **more: str) -> bytes:
    lines = {"Host": "localhost", "Content-Length": str(length), **more}
    return (
        f"POST {path} HTTP/1.1\r\n".encode()
        + "".join(f"{name.replace('_', '-')}: {text}\r\n" for name, text in lines.items() if text).encode()
        + b"\r\n"
    )


def status(received: bytes) -> int:
    assert received.startswith(b"HTTP/1.1 "), received[:100]
    return int(received[9:12])


def test_a_head_that_never_ends_is_cut_off(client):
    began = time.monotonic()
    assert talk(client, *(b"POST /predict HTTP/1.1\r\n", b"Host: localhost\r\n") * 10, pause=0.1) == b""
    assert time.monotonic() - began < 5


def test_a_connection_that_says_nothing_is_closed(client):
    assert talk(client) == b""


def test_so_is_one_that_begins_a_second_request_and_stops(client):
    received = talk(client, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /", pause=0.1)
    assert received.count(b"HTTP/1.1 200") == 1


def drip(client, first: bytes, part: bytes) -> bytes:
    """Send `first`, then `part` again and again; what was received before the server closed, soon."""
    received, end = b"", time.monotonic() + 5
    place = ("127.0.0.1", client.port)
    with suppress(ConnectionResetError, BrokenPipeError), socket.create_connection(place, 0.1) as raw:
        raw.sendall(first)
        while time.monotonic() < end:
            with suppress(TimeoutError):
                if not (more := raw.recv(65536)):
                    break
                received += more
            raw.sendall(part)
    assert time.monotonic() < end, "the server goes on listening"
    return received


def test_so_is_one_that_sends_only_empty_lines_after_an_answer(client):
    received = drip(client, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\r\n")
    assert received.count(b"HTTP/1.1 200") == 1


def test_requests_that_are_sent_together_are_answered_in_turn_and_each_has_its_time(client, monkeypatch):
    monkeypatch.setattr(connection, "EXCHANGE_SECONDS", 0.5)
    monkeypatch.setattr(guard, "BODY_SECONDS", 20.0)
    began = time.monotonic()
    health = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    received = talk(client, health + health + head(1000))
    assert received.count(b"HTTP/1.1 200") == 2
    assert time.monotonic() - began < 5


def test_the_rest_of_a_refused_body_is_not_waited_for(client):
    assert status(drip(client, head(2**21), b"x")) == 413


def test_a_body_that_comes_too_slowly_is_refused(client):
    received = talk(client, head(1000), *[b"x"] * 10, pause=0.1)
    assert status(received) == 408
    assert b"took longer than" in received


def test_a_longer_length_than_what_follows_is_refused(client):
    assert status(talk(client, head(1000) + b"short")) == 408


def test_what_follows_a_body_that_is_longer_than_its_length_is_no_request(client):
    received = talk(client, head(3) + b"abc" + b"<script>not a request</script>\r\n\r\n")
    # A body of three letters has its own refusal, then what follows has one.
    assert received.count(b"HTTP/1.1 400 ") == 2
    assert received.index(b"is not a PNG") < received.index(b"Invalid HTTP request")


def test_requests_before_a_broken_one_are_answered(client, digits):
    content = png(digits[0][0])
    whole = head(len(content)) + content
    broken = head("", Transfer_Encoding="chunked") + b"no length\r\n"
    received = talk(client, 3 * whole + broken, b"and more\r\n")
    assert received.count(b"HTTP/1.1 200 ") == 3
    assert received.count(b"HTTP/1.1 ") == 4
    assert received.endswith(b"Invalid HTTP request received.")


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 5000, "0x10"])
def test_lengths_that_are_none_are_refused(client, length):
    assert status(talk(client, head(length))) in (400, 413)


def test_an_upload_that_is_given_up_leaves_nothing(client):
    before = client.get("/metrics").content.decode()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", client.port)) as raw:
            raw.sendall(head(500_000) + b"x" * 1000)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.3)
    line = 'pipeline_requests_total{route="predict",status="499"}'

    def counted(text):
        return sum(int(found.split()[1]) for found in text.splitlines() if found.startswith(line))

    assert counted(client.get("/metrics").content.decode()) - counted(before) == 20


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_the_cap_is_refused(client, declared):
    content = b"x" * (2**20 + 1)
    if declared:
        received = talk(client, head(len(content)))
    else:
        chunk = f"{len(content):x}\r\n".encode() + content + b"\r\n0\r\n\r\n"
        received = talk(client, head("", Transfer_Encoding="chunked") + chunk)
    assert status(received) == 413
    assert b"larger than 1 MiB" in received


def test_all_bodies_together_have_a_cap(client, monkeypatch, served, digits):
    monkeypatch.setattr(guard, "BODY_SECONDS", 20.0)
    with running(served) as other:
        begun = []
        for _ in range(17):
            raw = socket.create_connection(("127.0.0.1", other.port))
            raw.sendall(head(2**20) + b"x" * (2**20 - 1))
            begun.append(raw)
        time.sleep(0.5)
        refused = 0
        for raw in begun:
            raw.settimeout(0.02)
            with suppress(TimeoutError):
                refused += b"503" in raw.recv(100)
        assert refused >= 1
        for raw in begun:
            raw.close()
        time.sleep(0.3)
        assert other.post("/predict", png(digits[0][0])).status == 200


def test_compressed_bodies_are_not_unpacked(client):
    assert client.post("/predict", zlib.compress(b"0" * 10**6), Content_Encoding="deflate").status == 415
    assert client.post("/v2/models/digits/infer", b"", Content_Encoding="gzip").status == 415


def test_heads_have_a_cap(client):
    begin = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    for lines in (b"X: " + b"x" * 400_000, b"X: x\r\n" * 80_000):
        received = talk(client, begin, lines)
        assert status(received) == 400
        assert b"too long" in received


def bomb(width: int, height: int) -> bytes:
    """A PNG file of a few bytes that says it has so many pixels."""

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
def test_what_is_no_picture_gets_a_sentence(client, name, path):
    answer = client.post(path, PAYLOADS[name], Content_Type="image/png")
    assert answer.status == 400
    assert answer.json["error"].startswith("The picture ")
    assert "Traceback" not in answer.json["error"]


def test_what_a_photo_says_about_itself_goes_nowhere(client, digits):
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


def test_the_json_of_a_tensor_has_a_cap_of_its_own(served):
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


@pytest.mark.parametrize("number", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_thousands_of_connections_come_and_go(client, number):
    for _ in range(number):
        with socket.create_connection(("127.0.0.1", client.port)) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_more_connections_than_are_answered_are_told_so_and_forgotten(served, monkeypatch):
    monkeypatch.setattr(server, "_CONNECTIONS", 50)
    with running(served) as client:
        held = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(50)]
        assert client.get("/health").status == 503
        # They said nothing, and are closed.
        until(lambda: client.get("/health").status == 200)
        for raw in held:
            raw.close()
