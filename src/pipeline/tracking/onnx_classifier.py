"""MLflow's `python_function` over the ONNX file; a copy travels with each logged model.

So it imports nothing of this package, and nothing that computing does not need.
"""

import json
import os
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray


class OnnxClassifier:
    """Computes probabilities with one thread: the same images give the same bits."""

    def __init__(self, path: str) -> None:
        """Read the ONNX file at `path`."""
        # Before it is imported.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (self._input,) = self._session.get_inputs()
        described = json.loads(self._session.get_modelmeta().custom_metadata_map.get("pipeline", "{}"))
        # Of a model of images in black and white, in which 1 is white.
        self._is_binary = ((described.get("unlike") or {}).get("brightest") or 255) <= 1

    def predict(self, images: Any, params: Any = None) -> NDArray[np.float32]:
        """What the model makes of `images`.

        Args:
            images: uint8 (n, height, width) or (n, height, width, channels), levels from 0 to 255.
            params: there are none.

        Returns:
            float32 (n, classes).

        Raises:
            MlflowException: they have another type or shape, or no level above 1: then they were divided by
                255, and a server that makes whole numbers of them has lost what was on them.
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
                "No level in these images is above 1, so they seem to be divided by 255: the model takes "
                "whole levels from 0 to 255."
            )
        (probabilities,) = self._session.run(None, {self._input.name: images})
        return np.asarray(probabilities)


def _load_pyfunc(path: str) -> OnnxClassifier:
    """What MLflow calls with the path of the model file."""
    return OnnxClassifier(path)
