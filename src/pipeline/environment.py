"""Set up the environment of the libraries that compute and draw, instead of inheriting it.

Their settings affect the last bits of weights and the bytes of figures, and DVC tracks none of them.
"""

import gc
import getpass
import importlib
import locale
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import PipelineError

# The fastest code for one processor rounds differently from the fastest for another. All x86-64 processors
# since 2013 have AVX2 and give the same bits with it, without wider registers or a vendor's approximations.
_X86 = platform.machine() == "x86_64"
_XLA_ALIKE = "--xla_cpu_enable_platform_dependent_math=false" + (" --xla_cpu_max_isa=AVX2" if _X86 else "")
_X86_ALIKE = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}

# Without it, a GPU adds up the parts of a sum in the order in which they finish.
CARD_FLAGS = "--xla_gpu_deterministic_ops=true"

# Prefixes of variables that are removed: the user's settings must not affect the pipeline.
_FOREIGN = (
    *("KERAS_", "TF_", "TENSORFLOW_", "XLA_", "JAX_", "CUDA_", "NVIDIA_", "ONEDNN_", "DNNL_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "NUMEXPR_"),
    *("NPY_", "SCIPY_", "SKLEARN_"),
    *("MPL", "MATPLOTLIB", "LC_", "LANG", "PYTHONWARNINGS", "PYTHONOPTIMIZE", "PYTHONINSPECT"),
)
# Locations of caches, log levels and the choice among equal GPUs: no result depends on these.
_KEPT = ("KERAS_HOME", "MPLCONFIGDIR", "TF_CPP_MIN_LOG_LEVEL", "CUDA_VISIBLE_DEVICES")
_SETTINGS = {
    "KERAS_BACKEND": "tensorflow",
    "XLA_FLAGS": _XLA_ALIKE,
    "TF_ENABLE_ONEDNN_OPTS": "1",  # makes convolutions a third faster; off by default on some processors
    "OMP_NUM_THREADS": "1",  # for NumPy and SciPy; TensorFlow uses train.threads
    "OPENBLAS_NUM_THREADS": "1",
    "MPLBACKEND": "agg",
    "MATPLOTLIBRC": os.devnull,
    "ORT_DISABLE_TELEMETRY": "1",  # telemetry of ONNX Runtime also leaves a file in TMPDIR on import
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",  # for processes that this one starts; dvc.yaml sets it for the stages
    **(_X86_ALIKE if _X86 else {}),
}

# Optional imports of Keras and TensorFlow: for wrappers, galleries, data frames and LiteRT.
_TAKEN_ALONG = ("sklearn", "matplotlib", "matplotlib.pyplot", "pandas", "jax")


@dataclass(frozen=True)
class Target:
    """The backend, devices, threads and precision of a training; see conf/train/default.yaml."""

    backend: str = "tensorflow"
    device: str = "cpu"
    devices: int = 1
    threads: int = 1
    precision: str = "float32"

    @property
    def settings(self) -> dict[str, str]:
        """The environment variables for the target, which the libraries read when they are imported."""
        # bfloat16 is faster only with instructions that few processors have.
        widest = _SETTINGS.get("ONEDNN_MAX_CPU_ISA", "DEFAULT") if self.precision == "float32" else "DEFAULT"
        if self.backend == "tensorflow":
            # With TensorFlow, trainings run on the processor.
            return {
                **{name: _SETTINGS[name] for name in ("KERAS_BACKEND", "TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS")},
                "CUDA_VISIBLE_DEVICES": "-1",
                "ONEDNN_MAX_CPU_ISA": widest,
            }
        flags = {
            "gpu": CARD_FLAGS,
            "cpu": f"--xla_force_host_platform_device_count={self.devices} {_XLA_ALIKE}",
        }
        return {
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cuda" if self.device == "gpu" else "cpu",
            "XLA_FLAGS": flags[self.device],
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # else JAX reserves three quarters of the memory
            # For XLA's threads, and its matrix products.
            **({"NPROC": str(self.threads), "ONEDNN_MAX_CPU_ISA": widest} if self.device == "cpu" else {}),
        }


def device_here(backend: str) -> Literal["cpu", "gpu"]:
    """Return what `train.device: auto` means on this machine, without starting JAX, which takes seconds."""
    if backend == "tensorflow":
        return "cpu"
    plugin = any(find_spec(f"jax_cuda{number}_plugin") for number in (12, 13))
    return "gpu" if plugin and any(Path("/dev").glob("nvidia[0-9]*")) else "cpu"


def prepare_environment(home: Path) -> None:
    """Set the environment of this process and its children, before NumPy, Keras or matplotlib are imported.

    Args:
        home: A folder for users without a writable home directory; created if needed.
    """
    for name in [name for name in os.environ if name.startswith(_FOREIGN) and name not in _KEPT]:
        del os.environ[name]
    os.environ.update(_SETTINGS)
    time.tzset()
    with suppress(locale.Error):
        locale.setlocale(locale.LC_ALL, "C.UTF-8")
    if sys.warnoptions:
        warnings.resetwarnings()
        warnings.simplefilter("ignore")
    _give_home(home)


def _give_home(home: Path) -> None:
    """Give libraries a home directory and a user name; in a container, the user may have neither."""
    if not os.access(os.path.expanduser("~"), os.W_OK):  # noqa: PTH111 (Path.home() raises)
        home.mkdir(parents=True, exist_ok=True)
        os.environ["HOME"] = str(home)
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"user{os.getuid()}"


@contextmanager
def without_collecting() -> Iterator[None]:
    """Disable the garbage collector for imports inside this context, which saves up to a quarter of the time.

    Later it ignores what was imported: checking TensorFlow's 400,000 objects would take a third of a second
    each time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.freeze()
            gc.enable()


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Suppress the lines that TensorFlow's libraries print while they are imported inside this context.

    Failures still raise exceptions. Set TF_CPP_MIN_LOG_LEVEL to see more messages later.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        with without_collecting():
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


_imported: list[Target] = []  # the target with which this process imported Keras


def import_keras(target: Target = Target()) -> None:
    """Import Keras with its own defaults, not those of the user's keras.json, and with the target's backend.

    Optional imports that nothing here uses are skipped, which saves a third of the time. They can be imported
    afterwards as usual, but Keras does not accept data frames in this process.

    Raises:
        PipelineError: If this process has already imported Keras with other settings.
    """
    if "keras" in sys.modules:
        _refuse_other_settings(target)
        return
    # Set here for notebooks too, whose environment is not prepared.
    os.environ.update(target.settings)
    _imported.append(target)
    if target.backend == "jax":
        sys.meta_path.insert(0, _NoTensorFlow())
    absent = set(_TAKEN_ALONG) - set(sys.modules) - {target.backend}
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # The import of None fails.
    # Keras reads keras.json on import, and writes it if it is missing; in this folder there can be none.
    home = os.environ.get("KERAS_HOME")
    os.environ["KERAS_HOME"] = os.devnull
    try:
        importlib.import_module("keras")
    finally:
        for name in absent:
            del sys.modules[name]
        del os.environ["KERAS_HOME"]
        if home is not None:
            os.environ["KERAS_HOME"] = home


class _NoTensorFlow(MetaPathFinder):
    """Keep Keras from importing TensorFlow, which takes seconds and some of the GPU's memory.

    An entry in `sys.modules` would not work: Keras's preprocessing layers would take TensorFlow as imported.
    """

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "tensorflow":
            raise ModuleNotFoundError("This process trains on JAX, without TensorFlow.", name=fullname)


def _refuse_other_settings(target: Target) -> None:
    import keras

    found = (
        keras.config.backend(),
        keras.config.floatx(),
        keras.config.epsilon(),
        keras.config.image_data_format(),
    )
    if found != (target.backend, "float32", 1e-7, "channels_last"):
        raise PipelineError(f"Keras was imported before with other settings, {found}: use a new process.")


def use(target: Target) -> None:
    """Configure Keras's backend for `target`.

    Raises:
        PipelineError: If this process already computes with other settings, or the devices do not exist.
    """
    if target.backend == "tensorflow":
        # The process may have imported Keras before it knew the target.
        os.environ.update(target.settings)
        use_threads(target.threads)
    else:
        _use_jax(target)


def use_threads(threads: int) -> None:
    """Let TensorFlow use `threads` threads; their number changes the last bits of the weights.

    Raises:
        PipelineError: If this process already uses another number.
    """
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        raise PipelineError(
            f"train.threads is {threads}, but this process already runs TensorFlow with "
            f"{tf.config.threading.get_intra_op_parallelism_threads()}: use a new process."
        ) from None


def _use_jax(target: Target) -> None:
    if _imported and _imported[0] != target:
        raise PipelineError(
            f"This process already uses JAX with other devices or threads, {_imported[0]}: use a new process."
        )
    devices = _jax_devices(target)
    if len(devices) < target.devices:
        raise PipelineError(
            f"train.devices is {target.devices}, and JAX finds {len(devices)} here: lower it, or see which "
            "cards CUDA_VISIBLE_DEVICES hides."
        )


def _jax_devices(target: Target) -> list[Any]:
    import jax

    try:
        return list(jax.devices())
    except (RuntimeError, AssertionError):  # JAX 0.10 raises AssertionError if CUDA is not installed.
        raise PipelineError(
            f"train.device is {target.device}, and JAX finds none here. docs/gpu.md says what a GPU needs; "
            "train.device=cpu trains on the processor, which makes another run with other last bits."
        ) from None


def device_tags(target: Target) -> dict[str, str]:
    """Return tags for the devices and packages of JAX; none for TensorFlow, which uses the processor."""
    if target.backend != "jax":
        return {}
    kinds = sorted({str(device.device_kind) for device in _jax_devices(target)[: target.devices]})
    packages = {f"package.{name}": version(name) for name in ("jax", "jaxlib")}
    return {"device": f"{target.devices} × {', '.join(kinds)}", **packages}
