"""The service of one server process: the model in use, and the threads that compute with it."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from pipeline.data.reader import PictureError
from pipeline.serving.batching import Batcher, OverloadedError
from pipeline.serving.metrics import Metrics
from pipeline.serving.occlusion import occlusion
from pipeline.serving.served import Answer, Served

MAX_ITEMS = 64  # of one request
_WAITING = 512  # pictures, of all requests
_EXPLAINED = 8  # pictures whose maps may be pending


class Service:
    """Answers with the model in use, which may be replaced between two requests."""

    def __init__(self, served: Served, metrics: Metrics, batch_seconds: float) -> None:
        self.served, self.metrics, self._batch_seconds = served, metrics, batch_seconds
        self.ready = False

    def start(self) -> None:
        """Start the threads; call this inside an event loop."""
        self._batcher = Batcher(seconds=self._batch_seconds, waiting=_WAITING, on_batch=self.metrics.batch)
        # In a separate thread, so that answers need not wait for a map, which takes as long as 200 of them.
        self._explainer = ThreadPoolExecutor(1, "explain")
        self._explaining = 0
        self.ready = True

    def stop(self) -> None:
        """Stop accepting work, and end the threads."""
        self.ready = False
        self._batcher.close()
        self._explainer.shutdown(wait=False, cancel_futures=True)

    async def answer(
        self, served: Served, pictures: Sequence[bytes | NDArray[np.uint8]]
    ) -> list[Answer | PictureError]:
        """Return what `served` answers for each picture, and count the answers.

        Raises:
            OverloadedError: If too many pictures are waiting already.
        """
        answers = await self._batcher.answer(served, pictures)
        for answer in answers:
            if isinstance(answer, Answer):
                self.metrics.picture(answer.label, bool(answer.unlike))
            else:
                self.metrics.count("pictures_refused_total")
        return answers

    async def explain(self, served: Served, answer: Answer) -> list[list[float]]:
        """Return the occlusion map of an answer, as rows.

        Raises:
            OverloadedError: If too many maps are being computed already.
        """
        if self._explaining >= _EXPLAINED:
            raise OverloadedError("Too many maps are being computed: try again in a second.")
        self._explaining += 1
        try:
            label = served.classes.index(answer.label)
            found = await asyncio.get_running_loop().run_in_executor(
                self._explainer, occlusion, answer.image, label, served.classifier.probabilities
            )
        finally:
            self._explaining -= 1
        return [[round(float(value), 4) for value in row] for row in found]
