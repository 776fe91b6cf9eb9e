"""Backends: the arithmetic of the fit loop, with one module for each Keras backend."""

import importlib
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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
    """Return the program that trains a copy of `network` on the configured backend.

    Args:
        network: from float32 (batch, pixels) in [0, 1] to logits (batch, classes).
        config: optimizer, batch size, augmentation, averaging, XLA, backend, devices, precision.
        steps: the total number of steps, for the learning rate schedule.
        head: `softmax` or `sigmoid`.
        image_shape: (height, width) or (height, width, channels).
        class_weights: the weight of each class in the loss; None for 1.
    """
    module = importlib.import_module(f"{__name__}.{config.backend}")
    program: Program = module.Program.of(network, config, steps, head, image_shape, class_weights)
    return program


def keep_compiled(target: Target, folder: Path) -> None:
    """Let JAX keep the programs that it compiles in `folder`, for trainings with other values or seeds.

    The folder can be deleted at any time. What can't be read in it is compiled again.
    """
    if target.backend != "jax":
        return
    import jax

    # Those of another architecture would not run, if machines share the clone.
    jax.config.update("jax_compilation_cache_dir", str(folder / platform.machine()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


@contextmanager
def quick_compilation(target: Target) -> Iterator[None]:
    """Disable JAX's compiler optimizations on a processor within this context, for code that runs only once.

    Initializers are compiled for each shape of weights: a second or two for a millisecond of work.
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
