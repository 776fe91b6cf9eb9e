"""Requests as bytes, for clients that do not keep to HTTP."""

import socket
import time
from contextlib import suppress


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


def drip(client, first: bytes, part: bytes) -> bytes:
    """Send `first`, then `part` repeatedly; return what was received until the server closed, soon."""
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
    assert time.monotonic() < end, "the server is still listening"
    return received
