"""MLflow's `python_function` for the ONNX file; each logged model contains a copy of this module.

That is why it imports nothing from this package, and only what is needed to compute.
"""

import json
import os
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray


class OnnxClassifier:
    """Computes probabilities with one thread, so that the same images give the same bits."""

    def __init__(self, path: str) -> None:
        """Read the ONNX file at `path`."""
        # This must be set before the import.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (self._input,) = self._session.get_inputs()
        described = json.loads(self._session.get_modelmeta().custom_metadata_map.get("pipeline", "{}"))
        # Whether the model was trained on black-and-white images in which 1 is white.
        self._is_binary = ((described.get("unlike") or {}).get("brightest") or 255) <= 1

    def predict(self, images: Any, params: Any = None) -> NDArray[np.float32]:
        """Return the probabilities of the classes.

        Args:
            images: uint8 (n, height, width) or (n, height, width, channels), levels from 0 to 255.
            params: Ignored; the model has no parameters.

        Returns:
            float32 (n, classes).

        Raises:
            MlflowException: If the images have another type or shape, or no level above 1: then they were
                probably divided by 255, and a server that casts them to integers has lost their contents.
        """
        images = np.asarray(images)
        shape = tuple(self._input.shape[1:])
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            raise MlflowException.invalid_parameter_value(
                f"The model takes uint8 images of shape (n, {', '.join(map(str, shape))}) with levels from 0 "
                f"to 255; these are {images.dtype} {images.shape}."
            )
        if images.size and images.max() <= 1 and not self._is_binary:
            raise MlflowException.invalid_parameter_value(
                "No level in these images is above 1, so they seem to be divided by 255; the model takes "
                "whole levels from 0 to 255."
            )
        (probabilities,) = self._session.run(None, {self._input.name: images})
        return np.asarray(probabilities)


def _load_pyfunc(path: str) -> OnnxClassifier:
    """Load the model file at `path`; MLflow calls this function by its name."""
    return OnnxClassifier(path)
