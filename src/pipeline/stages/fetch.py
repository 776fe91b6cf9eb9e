"""fetch: the first source that gives the pinned bytes -> data/raw."""

import hashlib
import io
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline.artifacts.workspace import Workspace, atomic
from pipeline.config.schema import Config, RawDigests
from pipeline.console import say
from pipeline.data import sources
from pipeline.data.arrays import canonical
from pipeline.errors import PipelineError


def run(config: Config, workspace: Workspace) -> None:
    """Try the sources in their order; write the raw arrays of the first that gives the pinned ones.

    Raises:
        PipelineError: no source did, with the reason for each; or nothing is pinned, with the
            digests to pin.
    """
    data = config.data
    reasons = []
    for source in data.sources:
        try:
            loaded = sources.load(source, data, workspace.home)
            arrays = canonical(loaded, data.classes, data.reader.image_shape)
            digests = {name: _digest(array) for name, array in arrays.items()}
            if data.sha256:
                _compare(digests, data.sha256)
        except PipelineError as error:
            reasons.append(f"  {source.kind}: {error}")
            continue
        if not data.sha256:
            raise PipelineError(_to_pin(data.name, digests))
        with atomic(workspace.raw) as folder:
            folder.mkdir()
            for name, array in arrays.items():
                np.save(folder / f"{name}.npy", array)
        if reasons:
            say("\n".join(["These sources did not serve:", *reasons]))
        say(
            f"Fetched {data.name} from {source.kind}: {len(arrays['train_images']):,} training and "
            f"{len(arrays['test_images']):,} test images."
        )
        return
    raise PipelineError(
        "\n".join([f"No source of {data.name} gave the data pinned in conf/data:", *reasons])
        + "\nMend one of them, or add one that can be reached to data.sources. If the data was changed on "
        "purpose, set data.sha256 to null: the next run prints the digests to pin."
    )


def _digest(array: NDArray[Any]) -> str:
    """The SHA-256 of the file that np.save would write."""
    header = io.BytesIO()
    npy.write_array_header_1_0(header, npy.header_data_from_array_1_0(array))
    digest = hashlib.sha256(header.getvalue())
    digest.update(array.data)
    return digest.hexdigest()


def _compare(digests: dict[str, str], pinned: RawDigests) -> None:
    for name, pin in pinned.model_dump().items():
        if digests[name] != pin:
            raise PipelineError(f"its {name} has the SHA-256 {digests[name]}, not the pinned {pin}")


def _to_pin(name: str, digests: dict[str, str]) -> str:
    lines = [f"  {key}: {digest}" for key, digest in digests.items()]
    return "\n".join(
        [
            f"data.sha256 pins nothing, so a cached result could not tell when {name} changes; nothing was "
            f"written. Look at the data, then put these lines into conf/data/{name}.yaml:",
            "sha256:",
            *lines,
        ]
    )
