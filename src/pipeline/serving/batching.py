"""Batching: classify the pictures that wait at the same time together, in separate threads."""

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

_MAX_BATCH = 64  # images in one batch
_LARGE = 2**14  # bytes of an encoded picture that takes long to read (fewer may still have many pixels)


class OverloadedError(PipelineError):
    """Too many pictures are waiting for an answer."""


@dataclass(frozen=True, slots=True)
class _Job:
    served: Served
    picture: bytes | NDArray[np.uint8]
    done: "asyncio.Future[Answer | PictureError]"


_Queue = SimpleQueue[_Job | None]


class Batcher:
    """Classifies in batches the pictures that arrive one by one.

    A thread takes the first picture in the queue, reads it, and then reads those behind it until the queue
    is empty or `seconds` have passed; then it classifies all of them at once. It never waits for pictures to
    arrive: one that comes alone is classified alone. Large pictures have two threads of their own, so that
    small ones need not wait while a large one is read. Small ones have a single thread, since a second would
    only compete with it for the interpreter lock. A picture that this thread can't read is passed on to the
    threads for large ones: it may have too many pixels, and if not, they report why it can't be read.

    Args:
        seconds: How long a picture may wait while others of the same batch are read.
        waiting: How many pictures may wait; any more are refused.
        on_batch: Called in the event loop with the size of each batch.
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
        """Return what `served` answers for each encoded picture, or image of the model's shape.

        Raises:
            OverloadedError: If too many pictures are waiting already.
        """
        if self._waiting + len(pictures) > self._room:
            raise OverloadedError("The server is overloaded: try again in a second.")
        jobs = [_Job(served, picture, self._loop.create_future()) for picture in pictures]
        self._waiting += len(jobs)
        for job in jobs:
            large = isinstance(job.picture, bytes) and len(job.picture) > _LARGE
            (self._large if large else self._small).put(job)
        return [await job.done for job in jobs]

    def close(self) -> None:
        """End the threads once they have answered for the pictures that are waiting."""
        self._small.put(None)

    def _work(self, queue: _Queue) -> None:
        while (job := queue.get()) is not None:
            batch, results = self._collect(job, queue)
            for served in {job.served for job, _ in batch}:
                members = [(job, image) for job, image in batch if job.served is served]
                results += _classify(served, members)
            self._loop.call_soon_threadsafe(self._deliver, results, len(batch))
        if queue is self._small:
            self._large.put(None)
            self._large.put(None)

    def _collect(
        self, job: _Job | None, queue: _Queue
    ) -> tuple[list[tuple[_Job, NDArray[np.uint8]]], list[tuple[_Job, "Answer | Exception"]]]:
        """Return the images of the next batch, and the pictures that can't be read with the errors."""
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
                else:  # The caller of `answer` gets the error.
                    refused.append((job, error))
            if len(batch) >= _MAX_BATCH or time.monotonic() >= end:
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


def _classify(
    served: Served, members: list[tuple[_Job, NDArray[np.uint8]]]
) -> "list[tuple[_Job, Answer | Exception]]":
    try:
        answers = served.classify(np.stack([image for _, image in members]))
    except Exception as error:  # The callers of `answer` get the error.
        return [(job, error) for job, _ in members]
    return [(job, answer) for (job, _), answer in zip(members, answers, strict=True)]
