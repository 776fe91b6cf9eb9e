"""Write a small ONNX model for tests without Keras: one linear layer, optionally with a softmax."""

import hashlib

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from pipeline.artifacts.onnx_file import Description, RunName, write
from pipeline.config.section import ReaderSection


def described(image_shape, classes, **changes):
    """Return the description of such a file."""
    values = {
        "run": RunName(id="0" * 32, name="linear-1"),
        "data": "pairs",
        "classes": tuple(classes),
        "image_shape": image_shape,
        "reader": ReaderSection(
            image_size=image_shape[:2],
            colour="rgb" if image_shape[2:] else "grey",
            resize="stretch",
            background="black",
            prepare="none",
            max_pixels=10**6,
        ),
        "weights_sha256": "0" * 64,
    }
    return Description(**{**values, **changes})


def linear_model(path, kernel, bias=0.0, image_shape=None, softmax=True, **changes):
    """Write a model whose logits are `pixels / 255 @ kernel + bias`.

    Args:
        path: of the file.
        kernel: (pixels, classes).
        bias: (classes,) or one number.
        image_shape: (height, width), by default (1, pixels).
        softmax: whether the logits become a distribution.
        changes: of the description.
    """
    pixels, classes = np.shape(kernel)
    shape = image_shape or (1, pixels)
    constants = {
        "scale": np.float32(1 / 255),
        "kernel": np.asarray(kernel, np.float32),
        "bias": np.broadcast_to(np.float32(bias), (classes,)),
    }
    last = "logits" if softmax else "probabilities"
    nodes = [
        helper.make_node("Cast", ["images"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["levels"], ["flat"]),
        helper.make_node("Mul", ["flat", "scale"], ["pixels"]),
        helper.make_node("MatMul", ["pixels", "kernel"], ["sums"]),
        helper.make_node("Add", ["sums", "bias"], [last]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"]))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    names = changes.pop("classes", [f"class {number}" for number in range(classes)])
    digest = hashlib.sha256(model.SerializeToString()).hexdigest()
    write(path, model, described(shape, names, weights_sha256=digest, **changes))
    return path
