"""Clients that are slow, broken or hostile: each is cut off, and the server answers the others."""

import socket
import struct
import time
import zlib
from contextlib import suppress

import pytest
from in_thread import running, until
from raw_requests import drip, head, status, talk

from photos import png
from pipeline.serving import connection, guard, server

pytestmark = pytest.mark.usefixtures("impatient", "still_answers")


def test_an_endless_head_is_cut_off(client):
    began = time.monotonic()
    assert talk(client, *(b"POST /predict HTTP/1.1\r\n", b"Host: localhost\r\n") * 10, pause=0.1) == b""
    assert time.monotonic() - began < 5


def test_a_silent_connection_is_closed(client):
    assert talk(client) == b""


def test_a_connection_that_stops_within_a_second_request_is_closed(client):
    received = talk(client, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /", pause=0.1)
    assert received.count(b"HTTP/1.1 200") == 1


def test_a_connection_that_sends_only_empty_lines_after_an_answer_is_closed(client):
    received = drip(client, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\r\n")
    assert received.count(b"HTTP/1.1 200") == 1


def test_requests_sent_together_are_answered_in_order_each_with_its_own_time_limit(client, monkeypatch):
    monkeypatch.setattr(connection, "EXCHANGE_SECONDS", 0.5)
    monkeypatch.setattr(guard, "BODY_SECONDS", 20.0)
    began = time.monotonic()
    health = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    received = talk(client, health + health + head(1000))
    assert received.count(b"HTTP/1.1 200") == 2
    assert time.monotonic() - began < 5


def test_the_server_does_not_wait_for_the_rest_of_a_refused_body(client):
    assert status(drip(client, head(2**21), b"x")) == 413


def test_a_body_that_comes_too_slowly_is_refused(client):
    received = talk(client, head(1000), *[b"x"] * 10, pause=0.1)
    assert status(received) == 408
    assert b"took longer than" in received


def test_a_declared_length_beyond_the_end_of_the_body_is_refused(client):
    assert status(talk(client, head(1000) + b"short")) == 408


def test_bytes_beyond_the_declared_length_are_not_a_request(client):
    received = talk(client, head(3) + b"abc" + b"<script>not a request</script>\r\n\r\n")
    # The body of three letters is refused, and then the bytes that follow.
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
def test_invalid_lengths_are_refused(client, length):
    assert status(talk(client, head(length))) in (400, 413)


def test_an_aborted_upload_leaves_nothing(client):
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
def test_a_body_over_the_limit_is_refused(client, declared):
    content = b"x" * (2**20 + 1)
    if declared:
        received = talk(client, head(len(content)))
    else:
        chunk = f"{len(content):x}\r\n".encode() + content + b"\r\n0\r\n\r\n"
        received = talk(client, head("", Transfer_Encoding="chunked") + chunk)
    assert status(received) == 413
    assert b"larger than 1 MiB" in received


def test_all_bodies_together_have_a_size_limit(client, monkeypatch, served, digits):
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


def test_heads_have_a_size_limit(client):
    begin = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    for lines in (b"X: " + b"x" * 400_000, b"X: x\r\n" * 80_000):
        received = talk(client, begin, lines)
        assert status(received) == 400
        assert b"too long" in received


@pytest.mark.parametrize("number", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_the_server_survives_thousands_of_short_connections(client, number):
    for _ in range(number):
        with socket.create_connection(("127.0.0.1", client.port)) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_connections_over_the_limit_are_refused_and_closed(served, monkeypatch):
    monkeypatch.setattr(server, "_CONNECTIONS", 50)
    with running(served) as client:
        held = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(50)]
        assert client.get("/health").status == 503
        # They sent nothing, and are closed.
        until(lambda: client.get("/health").status == 200)
        for raw in held:
            raw.close()
