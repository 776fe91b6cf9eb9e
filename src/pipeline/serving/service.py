"""The service: what one process that serves has: the model in use, and what computes with it."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from pipeline.data.reader import PictureError
from pipeline.serving.batching import Batcher
from pipeline.serving.metrics import Metrics
from pipeline.serving.occlusion import occlusion
from pipeline.serving.served import Answer, Served

MOST_ITEMS = 64  # of one request
_WAITING = 512  # pictures, of all requests
_EXPLAINED = 8  # pictures that may wait for their map


class Service:
    """Answers with the model in use, which may be replaced between two requests.

    Args:
        served: the model at first.
        metrics: where all is counted.
        batch_seconds: how long a picture may wait for others that are computed with it.
    """

    def __init__(self, served: Served, metrics: Metrics, batch_seconds: float) -> None:
        self.served, self.metrics, self._batch_seconds = served, metrics, batch_seconds
        self.ready = False

    def start(self) -> None:
        """Begin to compute; inside an event loop."""
        self._batcher = Batcher(seconds=self._batch_seconds, waiting=_WAITING, on_batch=self.metrics.batch)
        # Of its own: a map takes as long as 200 answers, which need not wait for it.
        self._explainer = ThreadPoolExecutor(1, "explain")
        self._explaining = 0
        self.ready = True

    def stop(self) -> None:
        """Compute nothing new."""
        self.ready = False
        self._batcher.close()
        self._explainer.shutdown(wait=False, cancel_futures=True)

    async def answer(
        self, served: Served, pictures: Sequence[bytes | NDArray[np.uint8]]
    ) -> list[Answer | PictureError]:
        """What `served` says of each picture, counted.

        Raises:
            OverloadedError: too many wait already.
        """
        answers = await self._batcher.answer(served, pictures)
        for answer in answers:
            if isinstance(answer, Answer):
                self.metrics.picture(answer.label, bool(answer.unlike))
            else:
                self.metrics.count("pictures_refused_total")
        return answers

    async def explain(self, served: Served, answer: Answer) -> list[list[float]] | None:
        """The map of what spoke for an answer, as rows; None: too many wait for theirs."""
        if self._explaining >= _EXPLAINED:
            return None
        self._explaining += 1
        try:
            label = served.classes.index(answer.label)
            found = await asyncio.get_running_loop().run_in_executor(
                self._explainer, occlusion, answer.image, label, served.predictor.probabilities
            )
        finally:
            self._explaining -= 1
        return [[round(float(value), 4) for value in row] for row in found]
