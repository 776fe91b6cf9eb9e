"""Another processor gives the same bytes: an Intel of 2013 in QEMU, exact where others approximate."""

import hashlib
import shutil
import sys

import pytest
from clones import smoke_clone_of

FILES = (
    "models/model.keras",
    "models/model.onnx",
    "models/history.csv",
    "models/run.json",
    "reports/metrics.json",
    "reports/probabilities.npy",
    "reports/predictions.csv",
    "reports/model_card.md",
    "reports/figures/confusion_counts.png",
)
# XLA; TensorFlow's own operations, with normalisation, augmentation and an incomplete batch; JAX.
TRAININGS = {
    "mlp": (),
    "cnn": ("model=cnn", "model.activation=gelu", "train.augment.rotation=10", "train.batch_size=96"),
    "jax": ("train.backend=jax",),
}


@pytest.mark.slow
@pytest.mark.parametrize("overrides", TRAININGS.values(), ids=TRAININGS)
def test_an_emulated_processor_makes_the_same_bytes_as_this_one(template, tmp_path, overrides):
    if not (emulator := shutil.which("qemu-x86_64")):
        pytest.fail("QEMU is missing: `apt-get install qemu-user`")
    clone = smoke_clone_of(template, tmp_path / "clone")
    clone.run("dvc", "exp", "run", *(f"--set-param={override}" for override in overrides))
    native = digests(clone)
    for path in FILES:
        (clone.root / path).unlink()
    for stage in ("train", "evaluate"):
        emulate(clone, emulator, "-cpu", "Haswell", sys.executable, "-m", "pipeline.stages", stage)
    assert digests(clone) == native


def emulate(clone, *command):
    """Run a command in QEMU, up to three times if QEMU itself crashes.

    QEMU 7.2 does so at times, in a process of many threads on a busy machine. Any other failure counts, and
    so do the bytes.
    """
    for attempt in (1, 2, 3):
        try:
            clone.run(*command)
            break
        except AssertionError as failure:
            if attempt == 3 or "qemu: uncaught target signal 11" not in str(failure):
                raise


def digests(clone):
    return {path: hashlib.md5((clone.root / path).read_bytes()).hexdigest() for path in FILES}
