"""Export of a Keras model to ONNX, checked against Keras."""

import logging
import tempfile
import textwrap
import warnings
from pathlib import Path

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from pipeline.artifacts.onnx_file import BATCH, INPUT, OUTPUT, Classifier, Description
from pipeline.errors import PipelineError
from pipeline.training.onnx_form import put_in_one_form
from pipeline.training.portable import portable

LARGEST_DIFFERENCE = 1e-5  # in a probability, between Keras and ONNX Runtime


def export(
    model: keras.Model, description: Description, images: NDArray[np.uint8]
) -> tuple[onnx.ModelProto, Classifier]:
    """Export `model` to ONNX, with the same bytes for the same weights, and check that it computes the same.

    Args:
        model: from uint8 (batch, *image_shape) to float32 probabilities (batch, classes).
        description: the metadata to store in the file.
        images: uint8 (n, pixels), n > 0, on which both are compared.

    Raises:
        PipelineError: If ONNX has no operation for a layer, or the results differ.
    """
    expected = _by_keras(model, images, description.image_shape)
    exported = _exported(_portable(model, images[:1].reshape(-1, *description.image_shape)))
    _replace_erfc(exported.graph)
    put_in_one_form(exported, INPUT, OUTPUT)
    classifier = Classifier(description, exported.SerializeToString())
    found = classifier.probabilities(images.reshape(-1, *description.image_shape))
    difference = np.abs(found - expected).max()
    if not difference <= LARGEST_DIFFERENCE or (found.argmax(1) != expected.argmax(1)).any():
        raise PipelineError(
            f"The exported model does not compute what Keras does: over {len(images):,} images a probability "
            f"differs by {difference:.2g}. Nothing is written; a layer of the model is not exported right."
        )
    return exported, classifier


def _by_keras(model: keras.Model, images: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.float32]:
    parts = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
    # Not compiled, since compiling takes longer than a few batches.
    return np.concatenate(
        [keras.ops.convert_to_numpy(model(part.reshape(-1, *shape), training=False)) for part in parts]
    )


def _portable(model: keras.Model, image: NDArray[np.uint8]) -> keras.Model:
    """Return a copy of `model` whose constants, which become weights, are the same on every processor."""

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        return portable(layer, type(layer).from_config(layer.get_config()))

    copied = keras.models.clone_model(model, clone_function=copy, recursive=True)
    copied.set_weights(model.get_weights())
    copied(image)  # Keras refuses to export a model that was never called.
    return copied


def _exported(model: keras.Model) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # About np.object, which Keras restores for tf2onnx.
        warnings.simplefilter("ignore", FutureWarning)
        # About operations that it cannot convert, which ONNX Runtime then rejects.
        logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
        path = Path(folder) / "model.onnx"
        try:
            model.export(path, format="onnx", verbose=False)
        except (ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
            reason = textwrap.shorten(str(error), 200, placeholder=" ...")
            raise PipelineError(f"The model can't be exported to ONNX: {reason}") from None
        return onnx.load_model(path)


def _replace_erfc(graph: onnx.GraphProto) -> None:
    """Replace Erfc, used by Keras's gelu, with 1 - Erf, since ONNX has no Erfc."""
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type != "Erfc":
            graph.node.append(node)
            continue
        [name] = node.output
        one = onnx.helper.make_tensor(f"{name}/one", onnx.TensorProto.FLOAT, [], [1.0])
        graph.initializer.append(one)
        graph.node.append(onnx.helper.make_node("Erf", node.input, [f"{name}/erf"]))
        graph.node.append(onnx.helper.make_node("Sub", [one.name, f"{name}/erf"], [name]))
