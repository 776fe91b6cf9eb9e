"""The predictor: the model file that was evaluated, ready to answer; needs neither TensorFlow nor MLflow."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.onnx_file import Classifier, Description, load
from pipeline.evaluation.unlike import scores as unlike_scores


class Predictor:
    """Answers for images; may be used by several threads at once."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    @classmethod
    def load(cls, path: Path) -> "Predictor":
        """The predictor of an ONNX file that the stage train wrote.

        Raises:
            PipelineError: the file is missing, damaged, has parts in other files, or is not from here.
        """
        return cls(load(path, fast=True))

    @property
    def description(self) -> Description:
        """What the file says of itself."""
        return self._classifier.description

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the model makes of `images`: the same images give the same bits.

        Args:
            images: uint8 (n, height, width) or (n, height, width, channels), as the description says.

        Returns:
            float32 (n, classes), rows that sum to one.

        Raises:
            PipelineError: the images have another dtype or shape.
        """
        return self._classifier.probabilities(images)

    def unlike(
        self, images: NDArray[np.uint8], probabilities: NDArray[np.float32]
    ) -> NDArray[np.bool_] | None:
        """Which images are unlike those of the training; None: the file does not say how to tell.

        Args:
            images: uint8 (n, *image_shape).
            probabilities: theirs, float32 (n, classes).
        """
        unlike = self.description.unlike
        if unlike is None:
            return None
        return unlike_scores(unlike, images, probabilities) > unlike.threshold
