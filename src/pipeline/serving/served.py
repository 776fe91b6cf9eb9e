"""The model in use, and its answers for pictures."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.artifacts.onnx_file import Classifier, load
from pipeline.config.section import ReaderSection
from pipeline.data.reader import read_picture
from pipeline.errors import PipelineError
from pipeline.evaluation.unlike import scores
from pipeline.serving.reference import Resolved

_SMALL = 2**18  # pixels of a picture that is quick to read
_DRAWN = 64  # pixels along the longer side of images that can be drawn by hand


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer for one image."""

    image: NDArray[np.uint8]  # as the model saw it
    label: str
    probability: float
    probabilities: NDArray[np.float32]  # (classes,)
    unlike: bool | None  # whether it is unlike the training images; None if not known


@dataclass(frozen=True, eq=False)
class Served:
    """A loaded model file, which several threads may use at once, and what is known about the model."""

    classifier: Classifier
    source: Resolved

    @classmethod
    def load(cls, source: Resolved) -> "Served":
        """Load the file and classify a picture, so that everything is loaded before the first request.

        Raises:
            PipelineError: If the file can't be used.
        """
        served = cls(load(source.path, fast=True), source)
        height, width = served.image_shape[:2]
        buffer = io.BytesIO()
        Image.fromarray(np.diag(np.full(max(height, width), 255, np.uint8))).save(buffer, "PNG")
        [answer] = served.classify(served.read(buffer.getvalue())[None])
        if not np.isfinite(answer.probabilities).all():
            raise PipelineError(f"{source.path} gives probabilities that are not finite numbers.")
        return served

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, in the order of the probabilities."""
        return self.classifier.description.classes

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width) or (height, width, channels)."""
        return self.classifier.description.image_shape

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The name, version and run of the model, which are part of each answer."""
        run = self.classifier.description.run
        return {"name": self.source.name, "version": self.source.version, "run": run.name}

    @cached_property
    def _reader_of_small(self) -> ReaderSection:
        reader = self.classifier.description.reader
        return reader.model_copy(update={"max_pixels": min(reader.max_pixels, _SMALL)})

    def read(self, picture: bytes | NDArray[np.uint8], small: bool = False) -> NDArray[np.uint8]:
        """Return the image that the model takes; `small` refuses pictures that take long to read.

        Raises:
            PictureError: If the picture can't be read, or `small` is true and it has too many pixels.
        """
        if not isinstance(picture, bytes):
            return picture
        return read_picture(picture, self._reader_of_small if small else self.classifier.description.reader)

    def classify(self, images: NDArray[np.uint8]) -> list[Answer]:
        """Return the answers for images, uint8 (n, *image_shape)."""
        probabilities = self.classifier.probabilities(images)
        strange = unlike(self.classifier, images, probabilities)
        best = probabilities.argmax(axis=1)
        return [
            Answer(
                images[number],
                self.classes[label],
                float(probabilities[number, label]),
                probabilities[number],
                strange[number],
            )
            for number, label in enumerate(best)
        ]

    def about(self) -> dict[str, Any]:
        """Return a description of the model for clients and for the page."""
        description = self.classifier.description
        reader = description.reader
        height, width = reader.image_size
        return self.identity | {
            "data": description.data,
            "classes": list(self.classes),
            "image_shape": list(self.image_shape),
            # Whether images can be drawn by hand: photographs can't.
            "drawn": reader.colour == "grey" and max(height, width) <= _DRAWN,
            "background": reader.background,
            "prepare": reader.prepare,
            "test_accuracy": self.source.test_accuracy,
            "card": self.source.card is not None,
        }


def unlike(
    classifier: Classifier, images: NDArray[np.uint8], probabilities: NDArray[np.float32]
) -> Sequence[bool | None]:
    """Tell for each image whether it is unlike the training images; None if the model has no measure of it.

    The images are uint8 (n, *image_shape), their probabilities float32 (n, classes).
    """
    measure = classifier.description.unlike
    if measure is None:
        return [None] * len(images)
    strange: list[bool | None] = (scores(measure, images, probabilities) > measure.threshold).tolist()
    return strange
