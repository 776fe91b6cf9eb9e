"""Prediction with the evaluated model file, without TensorFlow or MLflow."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.onnx_file import Classifier, Description, load
from pipeline.evaluation.unlike import scores as unlike_scores


class Predictor:
    """A loaded model; several threads may use it at once."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    @classmethod
    def load(cls, path: Path) -> "Predictor":
        """Load an ONNX file that the stage train wrote.

        Raises:
            PipelineError: If the file is missing or damaged, has parts in other files, or was not written by
                this pipeline.
        """
        return cls(load(path, fast=True))

    @property
    def description(self) -> Description:
        """The description of the model in the file."""
        return self._classifier.description

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities of the classes; the same images always give the same bits.

        Args:
            images: uint8 (n, height, width) or (n, height, width, channels), as the description says.

        Returns:
            float32 (n, classes), rows that sum to one.

        Raises:
            PipelineError: If the images have another dtype or shape.
        """
        return self._classifier.probabilities(images)

    def unlike(
        self, images: NDArray[np.uint8], probabilities: NDArray[np.float32]
    ) -> NDArray[np.bool_] | None:
        """Tell which images are unlike the training images.

        Args:
            images: uint8 (n, *image_shape).
            probabilities: The model's probabilities for `images`, float32 (n, classes).

        Returns:
            bool (n,), or None if the model file has no measure of it.
        """
        unlike = self.description.unlike
        if unlike is None:
            return None
        return unlike_scores(unlike, images, probabilities) > unlike.threshold
