"""The operations that TensorFlow runs after it has optimised the graph."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from pipeline.config.compose import compose
from pipeline.environment import use_threads
from pipeline.models import build
from pipeline.training.backends.tensorflow import Program

use_threads(1)

CONF = Path(__file__).parents[2] / "conf"
# Computed by approximating instructions, which differ between makers.
APPROXIMATED = {"Rsqrt", "Reciprocal", "Inv", "Erfc"}


@pytest.mark.parametrize("model", ["cnn", "cnn_photo", "mlp_gelu"])
def test_no_operation_gives_different_bits_on_a_processor_of_another_maker(model):
    config = compose(CONF, ["data=digits", f"model={model}", "model.activation=gelu", "train.xla=false"])
    program = Program.of(build(config.model, (8, 8), 3), config.train, 2, "softmax", (8, 8))
    images, labels = np.zeros((2, 5, 64), np.uint8), np.zeros((2, 5), np.int32)
    with context.collect_graphs(optimized=True) as graphs:
        program.train((tf.constant(images), tf.constant(labels)), False, lambda steps: None)
        program.sums(images[0], labels[0])
    operations = {node.op for graph in graphs for node in graph.node}
    operations |= {node.op for graph in graphs for one in graph.library.function for node in one.node_def}
    assert "MatMul" in operations or "_FusedMatMul" in operations
    assert not operations & APPROXIMATED
