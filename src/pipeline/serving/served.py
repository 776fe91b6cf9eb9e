"""The model in use: what it is called, and what it says of pictures."""

import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.config.section import ReaderSection
from pipeline.data.reader import read_picture
from pipeline.errors import PipelineError
from pipeline.serving.predictor import Predictor
from pipeline.serving.reference import Resolved

_SMALL = 2**18  # pixels that are read at once
_DRAWN = 64  # pixels along the longer side of images that are drawn by hand


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says of one image."""

    image: NDArray[np.uint8]  # as the model saw it
    label: str
    probability: float
    probabilities: NDArray[np.float32]  # (classes,)
    unlike: bool | None  # the images that the model was trained on; None: not known


@dataclass(frozen=True, eq=False)
class Served:
    """A model file in use."""

    predictor: Predictor
    source: Resolved

    @classmethod
    def load(cls, source: Resolved) -> "Served":
        """Load the file and let it answer once: what is loaded at the first picture is loaded now.

        Raises:
            PipelineError: the file can't be used.
        """
        served = cls(Predictor.load(source.path), source)
        height, width = served.image_shape[:2]
        buffer = io.BytesIO()
        Image.fromarray(np.diag(np.full(max(height, width), 255, np.uint8))).save(buffer, "PNG")
        [answer] = served.classify(served.read(buffer.getvalue())[None])
        if not np.isfinite(answer.probabilities).all():
            raise PipelineError(f"{source.path} answers with probabilities that are no numbers.")
        return served

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, in the order of the probabilities."""
        return self.predictor.description.classes

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width) or (height, width, channels)."""
        return self.predictor.description.image_shape

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What each answer says about the model that gave it."""
        run = self.predictor.description.run
        return {"name": self.source.name, "version": self.source.version, "run": run.name}

    @cached_property
    def _reader_of_small(self) -> ReaderSection:
        reader = self.predictor.description.reader
        return reader.model_copy(update={"max_pixels": min(reader.max_pixels, _SMALL)})

    def read(self, picture: bytes | NDArray[np.uint8], small: bool = False) -> NDArray[np.uint8]:
        """The image that the model takes, of an encoded picture or of an image already.

        Raises:
            PictureError: it can't be read, or is to be small and has so many pixels that reading takes long.
        """
        if not isinstance(picture, bytes):
            return picture
        return read_picture(picture, self._reader_of_small if small else self.predictor.description.reader)

    def classify(self, images: NDArray[np.uint8]) -> list[Answer]:
        """The answers for uint8 (n, *image_shape)."""
        probabilities = self.predictor.probabilities(images)
        unlike = self.predictor.unlike(images, probabilities)
        best = probabilities.argmax(axis=1)
        return [
            Answer(
                images[number],
                self.classes[label],
                float(probabilities[number, label]),
                probabilities[number],
                None if unlike is None else bool(unlike[number]),
            )
            for number, label in enumerate(best)
        ]

    def about(self) -> dict[str, Any]:
        """What the page says of the model."""
        description = self.predictor.description
        reader = description.reader
        height, width = reader.image_size
        return self.identity | {
            "data": description.data,
            "classes": list(self.classes),
            "image_shape": list(self.image_shape),
            # Nobody draws photographs.
            "drawn": reader.colour == "grey" and max(height, width) <= _DRAWN,
            "background": reader.background,
            "test_accuracy": self.source.test_accuracy,
            "card": self.source.card is not None,
        }
