"""Model files: written so that equal weights give equal bytes, read with distrust."""

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
        PipelineError: the file is missing, not a whole archive, runs code (a Lambda layer), or declares
            more weights than it holds.
    """
    if not path.is_file():
        raise PipelineError(f"There is no model at {path}: `dvc repro` trains one.")
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
            if unpacked > path.stat().st_size:
                raise PipelineError(f"{path} unpacks to {unpacked:,} bytes, more than it has: it is refused.")
            torn = archive.testzip()
            config = archive.read("config.json").decode()
            held = archive.getinfo("model.weights.h5").file_size
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError) as error:
        raise PipelineError(f"{path} is not a whole .keras file ({error}): restore or retrain it.") from None
    if torn:
        raise PipelineError(f"{path} is damaged in {torn}: restore or retrain it.")
    try:
        # A thread's Keras has a global state of its own, in which the unfilled weights are forgotten.
        with ThreadPoolExecutor(1) as thread:
            declared = thread.submit(_declared_bytes, config).result()
        if declared > held:
            raise PipelineError(
                f"{path} declares {declared:,} bytes of weights and holds {held:,}: it is refused unread."
            )
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError, AttributeError, RecursionError) as error:
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise PipelineError(f"{path} is refused by Keras: {reason}") from None


def weights_digest(model: keras.Model) -> str:
    """The SHA-256 over shape, dtype and bytes of every weight, in the model's order."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(f"{weight.shape} {weight.dtype};".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _without_addresses(config: bytes) -> bytes:
    """A Keras config whose shared objects are numbered in order, not by where they lay in memory.

    So are input layers without a name, as in nested models: Keras numbers them by what was made before.
    """
    numbers: dict[bytes, dict[bytes, int]] = {}

    def number(found: re.Match[bytes]) -> bytes:
        of_kind = numbers.setdefault(found[1], {})
        return b"%s%d" % (found[1], of_kind.setdefault(found[2], len(of_kind) + 1))

    config = re.sub(rb'("input_layer)(_\d+)?(?=")', number, config)
    return re.sub(rb'("shared_object_id": )(\d+)', number, config)


def _declared_bytes(config: str) -> int:
    """The number of bytes that the weights of a Keras config take; none is allocated."""
    with keras.StatelessScope(initialize_variables=False):
        model = keras.models.model_from_json(config)
        return sum(prod(weight.shape) * np.dtype(weight.dtype).itemsize for weight in model.weights)
