"""Send requests to a server over connections that stay open, and print statistics as JSON.

    python -m benchmarks.load PORT CLIENTS SECONDS REQUEST...

Each REQUEST is a file with a body for /predict, or for /v2/models/NAME/infer if its name ends with .json.
Every client sends one request at a time and cycles through the files. A request without an answer is counted
as "lost".
"""

import asyncio
import json
import sys
import time
from collections import Counter
from itertools import cycle
from pathlib import Path


class Client(asyncio.Protocol):
    """A client with one connection."""

    def __init__(self, load: "Load", first: int) -> None:
        self._load = load
        self._requests = cycle(load.requests[first:] + load.requests[:first])
        self._received = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Send the first request."""
        self._transport = transport
        self._load.open += 1
        self._send()

    def _send(self) -> None:
        self._sent, self._received = time.perf_counter(), b""
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        """Receive a part of an answer, and send the next request when the answer is complete."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            return
        now = time.perf_counter()
        self._load.seconds.append(now - self._sent)
        self._load.statuses[head[9:12].decode()] += 1
        if now < self._load.end:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Count a request that was not answered."""
        self._load.open -= 1
        if time.perf_counter() < self._load.end:
            self._load.statuses["lost"] += 1


class Load:
    """All connections, and the statistics of their requests."""

    def __init__(self, requests: list[bytes], seconds: float) -> None:
        self.requests, self.open = requests, 0
        self.seconds: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.length, self.end = seconds, time.perf_counter() + seconds

    async def run(self, port: int, clients: int) -> None:
        """Send requests from `clients` connections until the time is over."""
        loop = asyncio.get_running_loop()
        for number in range(clients):
            await loop.create_connection(
                lambda number=number: Client(self, number % len(self.requests)), "127.0.0.1", port
            )
        await asyncio.sleep(self.length)
        while self.open:
            await asyncio.sleep(0.01)

    def result(self) -> dict[str, object]:
        """Return requests per second, latencies in seconds, and the number of answers with each status."""
        ordered = sorted(self.seconds)
        return {
            "per_second": len(ordered) / self.length,
            "p50": ordered[len(ordered) // 2],
            "p99": ordered[int(len(ordered) * 0.99)],
            "statuses": dict(self.statuses),
        }


def request(path: Path) -> bytes:
    """Return the bytes of the request with the body in `path`."""
    body = path.read_bytes()
    route = f"/v2/models/{path.stem}/infer" if path.suffix == ".json" else "/predict"
    return f"POST {route} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


if __name__ == "__main__":
    port, clients, seconds, *files = sys.argv[1:]
    load = Load([request(Path(file)) for file in files], float(seconds))
    asyncio.run(load.run(int(port), int(clients)))
    print(json.dumps(load.result()))
