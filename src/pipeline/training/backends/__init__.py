"""Backends: the arithmetic of the fit loop, one module for each backend of Keras."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.config.schema import TrainSection
from pipeline.environment import Target

if TYPE_CHECKING:
    import keras

    from pipeline.training.program import Program


def program_of(
    network: "keras.Model",
    config: TrainSection,
    steps: int,
    head: str,
    image_shape: tuple[int, ...],
    class_weights: tuple[float, ...] | None = None,
) -> "Program":
    """What trains a network like `network`, with its values, on the backend that the configuration names.

    Args:
        network: from float32 (batch, pixels) in [0, 1] to logits (batch, classes).
        config: optimizer, batch size, augmentation, averaging, XLA, backend, devices, precision.
        steps: of the whole training, for the schedule of the learning rate.
        head: `softmax` or `sigmoid`.
        image_shape: (height, width) or (height, width, channels).
        class_weights: what the loss of an image of each class counts; None: 1.
    """
    module = importlib.import_module(f"{__name__}.{config.backend}")
    program: Program = module.Program.of(network, config, steps, head, image_shape, class_weights)
    return program


@contextmanager
def quick_compilation(target: Target) -> Iterator[None]:
    """Have JAX compile for a processor without its optimizations meanwhile, for what is computed only once.

    An initializer is compiled for each shape of weights: a second or two for a millisecond's work.
    """
    if target.backend != "jax" or target.device != "cpu":
        yield
        return
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
