import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from linear_model import described
from pipeline.artifacts.onnx_file import load, write
from pipeline.errors import PipelineError

DESCRIPTION = described((2, 3), ("dark", "light"))


def model(nodes=None, shape=(2, 3), classes=2, dtype=TensorProto.UINT8, weights=()):
    """Return a graph from images to the softmax of two sums of pixels."""
    kernel = np.stack([-np.ones(6), np.ones(6)], axis=1).astype(np.float32)
    nodes = nodes or [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "kernel"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("images", dtype, ["batch", *shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(kernel, "kernel"), *weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.onnx"
    write(path, model(), DESCRIPTION)
    return path


def test_a_written_model_is_read_and_computes(path):
    classifier = load(path)
    assert classifier.description == DESCRIPTION
    images = np.zeros((2500, 2, 3), np.uint8)
    images[1:] = 1
    found = classifier.probabilities(images)
    assert found.dtype == np.float32
    assert found[0] == pytest.approx([0.5, 0.5])
    assert found[2499] == pytest.approx([1 / (1 + np.exp(12)), 1 / (1 + np.exp(-12))])
    assert classifier.probabilities(images[:0]).shape == (0, 2)


def test_inference_needs_neither_tensorflow_nor_mlflow_and_leaves_and_sends_nothing(path, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    script = (
        "import sys, numpy; from pathlib import Path; from pipeline.artifacts.onnx_file import load; "
        f"load(Path({str(path)!r}), fast=True).probabilities(numpy.zeros((1, 2, 3), numpy.uint8)); "
        "print([name for name in ('tensorflow', 'keras', 'mlflow', 'pandas') if name in sys.modules])"
    )
    environment = {**os.environ, "TMPDIR": str(temporary)}
    # The tests' own environment is prepared; a user's is not.
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert result.stdout == "[]\n"
    # ONNX Runtime's telemetry would have begun a session in a file there.
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 2, 3)), np.zeros((1, 3, 2), np.uint8), np.zeros((2, 3), np.uint8)],
    ids=["floats", "another-shape", "no-batch"],
)
def test_images_that_the_model_does_not_take_are_refused(path, images):
    with pytest.raises(PipelineError, match=r"takes uint8 images of shape \(n, 2, 3\)"):
        load(path).probabilities(images)


# --- hostile files -----------------------------------------------------------------------------


def refused(path):
    with pytest.raises(PipelineError) as error:
        load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("content", [b"", b"\x00" * 99, b"<html>", b"PK\x03\x04", b"\x80\x04\x95."])
def test_a_file_that_is_not_onnx_is_refused(path, content):
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path)


def test_a_missing_file_is_refused_with_the_remedy(tmp_path):
    assert "`dvc repro` trains one" in refused(tmp_path / "model.onnx")


def test_an_onnx_file_of_another_program_is_refused(path):
    onnx.save(model(), path)
    assert "not a model of this pipeline" in refused(path)


def test_damaged_metadata_are_refused(path):
    damaged = onnx.load(path)
    damaged.metadata_props[0].value = '{"run": {}, "classes": 3}'
    onnx.save(damaged, path)
    assert "damaged metadata" in refused(path)


def test_weights_in_other_files_are_not_read(path, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(48))
    for inside in (False, True):
        outside = model()
        tensor = outside.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="secret")
        if inside:  # As the value of a node.
            node = helper.make_node("Constant", [], ["kernel"], value=tensor)
            del outside.graph.initializer[:]
            outside.graph.node.insert(0, node)
        write(path, outside, DESCRIPTION)
        assert "weights in other files" in refused(path)


@pytest.mark.parametrize(
    "other",
    [
        {"shape": (3, 2)},
        {"classes": 3},
        {"dtype": TensorProto.FLOAT},
    ],
    ids=["shape", "classes", "dtype"],
)
def test_a_graph_that_contradicts_the_metadata_is_refused(path, other):
    write(path, model(**other), DESCRIPTION)
    assert "as its metadata say" in refused(path)


@pytest.mark.parametrize("operation", ["ConstantOfShape", "Expand", "Tile"])
def test_an_array_larger_than_any_image_needs_is_refused_before_it_is_allocated(path, operation):
    size = numpy_helper.from_array(np.array([200_000, 200_000]), "size")
    one = numpy_helper.from_array(np.ones((1, 1), np.float32), "one")
    nodes = [
        helper.make_node(
            operation, ["size"] if operation == "ConstantOfShape" else ["one", "size"], ["huge"]
        ),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "kernel"], ["logits"]),
        helper.make_node("Add", ["logits", "sum"], ["probabilities"]),
    ]
    write(path, model(nodes, weights=[size, one]), DESCRIPTION)
    assert "an array of 40,000,000,000 numbers" in refused(path)


def test_a_failure_during_inference_is_reported_in_a_sentence(path):
    index = numpy_helper.from_array(np.array([7]), "index")
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["places"], to=TensorProto.INT64),
        helper.make_node("GatherElements", ["flat", "places"], ["shuffled"], axis=1),
        helper.make_node("MatMul", ["shuffled", "kernel"], ["probabilities"]),
    ]
    write(path, model(nodes, weights=[index]), DESCRIPTION)
    with pytest.raises(PipelineError, match="can't compute the model"):
        load(path).probabilities(np.full((1, 2, 3), 200, np.uint8))


def test_an_operation_that_the_runtime_lacks_is_refused(path):
    node = helper.make_node("Shell", ["images"], ["probabilities"], domain="evil")
    strange = model([node])
    strange.opset_import.append(helper.make_opsetid("evil", 1))
    write(path, strange, DESCRIPTION)
    assert "ONNX Runtime refuses the model" in refused(path)
