"""Model files: written so that equal weights give equal bytes, read with distrust."""

import hashlib
import json
import zipfile
from math import prod
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipeline.errors import PipelineError
from pipeline.workspace import atomic

_PARTS = ("metadata.json", "config.json", "model.weights.h5")
_EPOCH_OF_ZIP = (1980, 1, 1, 0, 0, 0)


def save(model: keras.Model, path: Path) -> None:
    """Write `model` as a .keras archive without dates: the same weights give the same bytes."""
    with atomic(path) as temporary:
        dated = temporary.with_suffix(".keras")
        try:
            model.save(dated)
            with zipfile.ZipFile(dated) as source, zipfile.ZipFile(temporary, "w") as target:
                for part in _PARTS:
                    content = source.read(part)
                    if part == "metadata.json":
                        content = json.dumps({"keras_version": keras.__version__}).encode()
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
            config = json.loads(archive.read("config.json"))
            held = archive.getinfo("model.weights.h5").file_size
            torn = archive.testzip()
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError) as error:
        raise PipelineError(f"{path} is not a whole .keras file ({error}): restore or retrain it.") from None
    if torn:
        raise PipelineError(f"{path} is damaged in {torn}: restore or retrain it.")
    declared = _declared_bytes(config)
    if declared > held:
        raise PipelineError(
            f"{path} declares {declared:,} bytes of weights and holds {held:,}: it is refused unread."
        )
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PipelineError(f"{path} is refused by Keras: {reason}") from None


def weights_digest(model: keras.Model) -> str:
    """The SHA-256 over shape, dtype and bytes of every weight, in the model's order."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(f"{weight.shape} {weight.dtype};".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _declared_bytes(node: Any) -> int:
    """The least number of bytes that the kernels declared in a Keras config would allocate."""
    if isinstance(node, list):
        return sum(_declared_bytes(item) for item in node)
    if not isinstance(node, dict):
        return 0
    total = sum(_declared_bytes(value) for value in node.values())
    settings = node.get("config")
    if isinstance(settings, dict):
        width = settings.get("units") or settings.get("filters") or 0
        shape = (node.get("build_config") or {}).get("input_shape") or [1]
        window = settings.get("kernel_size") or [1]
        if isinstance(width, int) and isinstance(shape[-1], int):
            total += 4 * width * shape[-1] * prod(window if isinstance(window, list) else [window])
    return total
