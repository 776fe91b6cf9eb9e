"""Write Keras model files so that equal weights give equal bytes, and read untrusted ones safely."""

import hashlib
import json
import re
import textwrap
import zipfile
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path

import keras
import numpy as np

from pipeline.artifacts.workspace import atomic
from pipeline.errors import PipelineError

_PARTS = ("metadata.json", "config.json", "model.weights.h5")
_EPOCH_OF_ZIP = (1980, 1, 1, 0, 0, 0)


def save(model: keras.Model, path: Path) -> None:
    """Write `model` as a .keras archive without dates: the same weights give the same bytes."""
    with atomic(path) as temporary:
        dated = temporary.with_name(f"{temporary.name}.keras")
        try:
            model.save(dated)
            with zipfile.ZipFile(dated) as source, zipfile.ZipFile(temporary, "w") as target:
                for part in _PARTS:
                    content = source.read(part)
                    if part == "metadata.json":
                        content = json.dumps({"keras_version": keras.__version__}).encode()
                    if part == "config.json":
                        content = _without_addresses(content)
                    target.writestr(zipfile.ZipInfo(part, _EPOCH_OF_ZIP), content)
        finally:
            dated.unlink(missing_ok=True)


def load(path: Path) -> keras.Model:
    """Read a model that `save`, or Keras itself, wrote; no code in the file is run.

    Raises:
        PipelineError: If the file is missing, is not a complete archive, runs code (a Lambda layer), or
            declares more weights than it contains.
    """
    if not path.is_file():
        raise PipelineError(f"There is no model at {path}: `dvc repro` trains one.")
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
            if unpacked > path.stat().st_size:
                raise PipelineError(
                    f"{path} unpacks to {unpacked:,} bytes, more than its size: it is refused."
                )
            torn = archive.testzip()
            config = archive.read("config.json").decode()
            held = archive.getinfo("model.weights.h5").file_size
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError) as error:
        raise PipelineError(f"{path} is not a whole .keras file ({error}): restore or retrain it.") from None
    if torn:
        raise PipelineError(f"{path} is damaged in {torn}: restore or retrain it.")
    try:
        # Keras has a global state per thread; this one is discarded with the uninitialised weights.
        with ThreadPoolExecutor(1) as thread:
            declared = thread.submit(_declared_bytes, config).result()
        if declared > held:
            raise PipelineError(
                f"{path} declares {declared:,} bytes of weights and holds {held:,}: it is refused."
            )
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError, AttributeError, RecursionError) as error:
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise PipelineError(f"{path} is refused by Keras: {reason}") from None


def weights_digest(model: keras.Model) -> str:
    """Return the SHA-256 over shape, dtype and bytes of every weight, in the model's order."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(f"{weight.shape} {weight.dtype};".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _without_addresses(config: bytes) -> bytes:
    """Number the shared objects of a Keras config in order instead of by their addresses in memory.

    Input layers without a name, as in nested models, are numbered too: Keras counts all earlier ones.
    """
    numbers: dict[bytes, dict[bytes, int]] = {}

    def number(found: re.Match[bytes]) -> bytes:
        of_kind = numbers.setdefault(found[1], {})
        return b"%s%d" % (found[1], of_kind.setdefault(found[2], len(of_kind) + 1))

    config = re.sub(rb'("input_layer)(_\d+)?(?=")', number, config)
    return re.sub(rb'("shared_object_id": )(\d+)', number, config)


def _declared_bytes(config: str) -> int:
    """Return the number of bytes that the weights of a Keras config need, without allocating them."""
    with keras.StatelessScope(initialize_variables=False):
        model = keras.models.model_from_json(config)
        return sum(prod(weight.shape) * np.dtype(weight.dtype).itemsize for weight in model.weights)
