"""Metrics in the text format of Prometheus, summed over the processes of a server."""

import fcntl
import mmap
import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np

_Sums = Mapping[tuple[object, ...], float]

ROUTES = ("predict", "explain", "infer", "other")
_STATUSES = (200, 400, 401, 403, 404, 405, 408, 413, 415, 421, 499, 500, 503, 0)  # 0: any other
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)
_PLAIN = {
    "pictures_unlike_total": "Pictures unlike the training images.",
    "pictures_refused_total": "Pictures that could not be read.",
    "model_switches_total": "Switches to another version of the model.",
    "model_refusals_total": "Versions of the model that were refused.",
}


class Metrics:
    """The counters of one process, which are a row of a table that all processes of the server share.

    Args:
        classes: The labels.
        processes: The number of processes that share the table.
        file: The file of the table, created if it is missing; None keeps it in memory, for one process.
    """

    def __init__(self, classes: Sequence[str], processes: int = 1, file: Path | None = None) -> None:
        self._classes = tuple(classes)
        self._columns = {key: i for i, key in enumerate(self._keys())}
        shape = (processes, len(self._columns))
        self._file = None
        if file is None:
            self._table = np.zeros(shape)
            self._row = self._table[0]
            return
        self._file = os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
        size = 8 * shape[0] * shape[1]
        if os.fstat(self._file.fileno()).st_size < size:
            os.ftruncate(self._file.fileno(), size)
        self._table = np.frombuffer(mmap.mmap(self._file.fileno(), size), np.float64).reshape(shape)
        self._row = self._table[self._free_row(processes)]

    def _free_row(self, processes: int) -> int:
        """Lock and return the first row that no process uses; the lock ends with the process."""
        assert self._file is not None
        for row in range(processes):
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, row)
            except OSError:
                continue
            return row
        # For a moment, a process that is about to end may share the last row with its replacement.
        return processes - 1

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._add(("requests_total", route, status if status in _STATUSES else 0))
        self._observe("request_seconds", route, bisect_left(_SECONDS, seconds), seconds)

    def batch(self, size: int) -> None:
        """Count a batch of images."""
        self._observe("batch_size", "", bisect_left(_SIZES, size), size)

    def picture(self, label: str, unlike: bool) -> None:
        """Count a picture that was answered."""
        self._add(("pictures_total", label))
        if unlike:
            self._add(("pictures_unlike_total",))

    def count(self, name: str) -> None:
        """Add one to a counter without labels."""
        self._add((name,))

    def text(self, model: dict[str, str]) -> str:
        """Return all metrics in the format of Prometheus; `model` describes the model in use."""
        sums = dict(zip(self._columns, self._table.sum(axis=0).tolist(), strict=True))
        return "\n".join([*self._lines(sums, model), ""])

    def _lines(self, sums: _Sums, model: dict[str, str]) -> Iterator[str]:
        yield from _head("model_info", "gauge", "The model in use.")
        yield f"pipeline_model_info{_labels(model)} 1"
        yield from _head("requests_total", "counter", "Requests, by route and status.")
        for route, status in product(ROUTES, _STATUSES):
            if number := sums["requests_total", route, status]:
                labels = _labels({"route": route, "status": str(status or "other")})
                yield f"pipeline_requests_total{labels} {number:.0f}"
        yield from _head("request_seconds", "histogram", "Seconds from the head of a request to its answer.")
        for route in ROUTES:
            yield from self._histogram("request_seconds", {"route": route}, _SECONDS, sums)
        yield from _head("batch_size", "histogram", "Images in a batch.")
        yield from self._histogram("batch_size", {}, _SIZES, sums)
        yield from _head("pictures_total", "counter", "Pictures that were classified, by label.")
        for label in self._classes:
            yield f"pipeline_pictures_total{_labels({'label': label})} {sums['pictures_total', label]:.0f}"
        for name, text in _PLAIN.items():
            yield from _head(name, "counter", text)
            yield f"pipeline_{name} {sums[(name,)]:.0f}"

    def _histogram(
        self, name: str, labels: dict[str, str], bounds: Sequence[float], sums: _Sums
    ) -> Iterator[str]:
        route, below = labels.get("route", ""), 0.0
        for i, bound in enumerate((*map(str, bounds), "+Inf")):
            below += sums[name, route, i]
            yield f"pipeline_{name}_bucket{_labels(labels | {'le': bound})} {below:.0f}"
        yield f"pipeline_{name}_sum{_labels(labels)} {sums[name, route, 'sum']:.6f}"
        yield f"pipeline_{name}_count{_labels(labels)} {below:.0f}"

    def _keys(self) -> Iterator[tuple[object, ...]]:
        yield from product(("requests_total",), ROUTES, _STATUSES)
        yield from product(("request_seconds",), ROUTES, (*range(len(_SECONDS) + 1), "sum"))
        yield from product(("batch_size",), ("",), (*range(len(_SIZES) + 1), "sum"))
        yield from product(("pictures_total",), self._classes)
        yield from ((name,) for name in _PLAIN)

    def _observe(self, name: str, route: str, bucket: int, amount: float) -> None:
        self._add((name, route, bucket))
        self._add((name, route, "sum"), amount)

    def _add(self, key: tuple[object, ...], amount: float = 1) -> None:
        self._row[self._columns[key]] += amount


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP pipeline_{name} {text}"
    yield f"# TYPE pipeline_{name} {kind}"


def _labels(labels: dict[str, str]) -> str:
    escaped = {
        name: text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        for name, text in labels.items()
    }
    inner = ",".join(f'{name}="{text}"' for name, text in escaped.items())
    return f"{{{inner}}}" if inner else ""
