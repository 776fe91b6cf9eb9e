"""Batching: pictures that wait at the same time are computed together, in threads of their own."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import numpy as np
from numpy.typing import NDArray

from pipeline.data.reader import PictureError
from pipeline.errors import PipelineError
from pipeline.serving.served import Answer, Served

_MOST = 64  # images that are computed together
_LARGE = 2**14  # bytes of an encoded picture that takes long to read; fewer may unpack to many pixels


class OverloadedError(PipelineError):
    """More pictures wait than can be answered soon."""


@dataclass(frozen=True, slots=True)
class _Job:
    served: Served
    picture: bytes | NDArray[np.uint8]
    done: "asyncio.Future[Answer | PictureError]"


_Queue = SimpleQueue[_Job | None]


class Batcher:
    """Answers pictures that come in one by one.

    A thread takes the first picture that waits, reads it, and takes those that wait behind it until
    `seconds` have passed; then it computes all of them at once. Nobody is waited for: a picture that comes
    alone is computed alone. Large pictures have two threads of their own, or small ones would wait while
    they are read; small ones have one, since a second would only fight with it for the interpreter. What that
    one can't read is left to them, who say why or find it large.

    Args:
        seconds: how long a picture may wait for others to be read that are computed with it.
        waiting: how many pictures may wait; more are refused.
        on_batch: is called in the event loop with the size of each batch.
    """

    def __init__(
        self, *, seconds: float, waiting: int, on_batch: Callable[[int], None] | None = None
    ) -> None:
        self._small: _Queue = SimpleQueue()
        self._large: _Queue = SimpleQueue()
        self._seconds, self._room, self._on_batch = seconds, waiting, on_batch
        self._waiting = 0
        self._loop = asyncio.get_running_loop()
        for queue in (self._small, self._large, self._large):
            threading.Thread(target=self._work, args=(queue,), daemon=True).start()

    async def answer(
        self, served: Served, pictures: Sequence[bytes | NDArray[np.uint8]]
    ) -> list[Answer | PictureError]:
        """What `served` says of each picture: encoded bytes, or an image of the model's shape.

        Raises:
            OverloadedError: too many pictures wait already.
        """
        if self._waiting + len(pictures) > self._room:
            raise OverloadedError("The server has more to do than it can do now: try again in a second.")
        jobs = [_Job(served, picture, self._loop.create_future()) for picture in pictures]
        self._waiting += len(jobs)
        for job in jobs:
            large = isinstance(job.picture, bytes) and len(job.picture) > _LARGE
            (self._large if large else self._small).put(job)
        return [await job.done for job in jobs]

    def close(self) -> None:
        """End the threads once they have computed what waits."""
        self._small.put(None)

    def _work(self, queue: _Queue) -> None:
        while (job := queue.get()) is not None:
            batch, results = self._collect(job, queue)
            for served in {job.served for job, _ in batch}:
                members = [(job, image) for job, image in batch if job.served is served]
                results += _classified(served, members)
            self._loop.call_soon_threadsafe(self._deliver, results, len(batch))
        if queue is self._small:
            self._large.put(None)
            self._large.put(None)

    def _collect(
        self, job: _Job | None, queue: _Queue
    ) -> tuple[list[tuple[_Job, NDArray[np.uint8]]], list[tuple[_Job, "Answer | Exception"]]]:
        """The images that are computed together, and the pictures that can't be read."""
        batch: list[tuple[_Job, NDArray[np.uint8]]] = []
        refused: list[tuple[_Job, Answer | Exception]] = []
        small = queue is self._small
        end = time.monotonic() + self._seconds
        while job is not None:
            try:
                batch.append((job, job.served.read(job.picture, small)))
            except Exception as error:
                if small and isinstance(error, PictureError):
                    self._large.put(job)
                else:  # Whoever asked gets it.
                    refused.append((job, error))
            if len(batch) >= _MOST or time.monotonic() >= end:
                break
            try:
                job = queue.get_nowait()
            except Empty:
                break
            if job is None:
                queue.put(None)
        return batch, refused

    def _deliver(self, results: "list[tuple[_Job, Answer | Exception]]", size: int) -> None:
        self._waiting -= len(results)
        if self._on_batch and size:
            self._on_batch(size)
        for job, result in results:
            if job.done.done():
                continue
            if isinstance(result, Answer | PictureError):
                job.done.set_result(result)
            else:
                job.done.set_exception(result)


def _classified(
    served: Served, members: list[tuple[_Job, NDArray[np.uint8]]]
) -> "list[tuple[_Job, Answer | Exception]]":
    try:
        answers = served.classify(np.stack([image for _, image in members]))
    except Exception as error:  # Whoever asked gets it.
        return [(job, error) for job, _ in members]
    return [(job, answer) for (job, _), answer in zip(members, answers, strict=True)]
