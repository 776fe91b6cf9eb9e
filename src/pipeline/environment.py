"""What surrounds the libraries: the settings that they read when they are imported, and their imports."""

import gc
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import PipelineError


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Import TensorFlow inside: the lines its libraries write at their start are no news to anyone.

    What fails raises an exception all the same. Set TF_CPP_MIN_LOG_LEVEL to see more later on.
    The garbage collector rests meanwhile, a sixth of the time, and leaves what was imported alone later on:
    it would look at 400,000 objects again and again, a third of a second each time.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    collects = gc.isenabled()
    gc.disable()
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        if collects:
            gc.freeze()
            gc.enable()


def import_keras() -> None:
    """Import Keras without what it takes along if it is there and nothing here uses: a quarter of the time.

    sklearn is for its wrappers, pyplot for its galleries; either can be imported afterwards as ever.
    """
    if "keras" in sys.modules:
        return
    # Convolutions take a third less time with oneDNN, which TensorFlow leaves off on some processors.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    absent = {"sklearn", "matplotlib.pyplot"} - set(sys.modules)
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # The import of None fails.
    try:
        importlib.import_module("keras")
    finally:
        for name in absent:
            del sys.modules[name]


def use_threads(threads: int) -> None:
    """Have TensorFlow compute with `threads` threads; their number changes the weights' last bits.

    Raises:
        PipelineError: this process already computed with another number.
    """
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        raise PipelineError(
            f"train.threads is {threads}, but this process already runs TensorFlow with "
            f"{tf.config.threading.get_intra_op_parallelism_threads()}: use a process of its own."
        ) from None
