"""The export of a Keras model to ONNX, checked against Keras."""

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
    """`model` as ONNX has it, in one form for equal weights, and ready to compute what Keras does.

    Args:
        model: from uint8 (batch, *image_shape) to float32 probabilities (batch, classes).
        description: what the file is to say of itself.
        images: uint8 (n, pixels), n > 0, to compare both on.

    Raises:
        PipelineError: ONNX has no operation for a layer, or the results differ.
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
    # Not compiled, which takes longer than some batches.
    return np.concatenate(
        [keras.ops.convert_to_numpy(model(part.reshape(-1, *shape), training=False)) for part in parts]
    )


def _portable(model: keras.Model, image: NDArray[np.uint8]) -> keras.Model:
    """`model` of layers whose constants, which become weights, all processors compute alike."""

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        return portable(layer, type(layer).from_config(layer.get_config()))

    copied = keras.models.clone_model(model, clone_function=copy, recursive=True)
    copied.set_weights(model.get_weights())
    copied(image)  # Keras refuses to export a model that was never called.
    return copied


def _exported(model: keras.Model) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # NumPy's name for Python's object, which Keras puts back for tf2onnx.
        warnings.simplefilter("ignore", FutureWarning)
        # Of operations that it leaves as they are, and which ONNX Runtime then refuses.
        logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
        path = Path(folder) / "model.onnx"
        try:
            model.export(path, format="onnx", verbose=False)
        except (ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
            reason = textwrap.shorten(str(error), 200, placeholder=" ...")
            raise PipelineError(f"The model can't be exported to ONNX: {reason}") from None
        return onnx.load_model(path)


def _replace_erfc(graph: onnx.GraphProto) -> None:
    """Write the complement of the error function, in Keras's gelu, as one minus that: ONNX has no other."""
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
