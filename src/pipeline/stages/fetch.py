"""fetch: write data/raw from the first source that gives the pinned bytes."""

from pathlib import Path
from typing import Any

from pipeline.artifacts.workspace import Workspace, atomic
from pipeline.config.schema import Config, DataSection
from pipeline.console import say
from pipeline.data import sources
from pipeline.data.arrays import NAMES, SIZES, canonical
from pipeline.data.formats.npy import write_npy
from pipeline.data.names import write_names
from pipeline.errors import PipelineError


class _UnpinnedError(PipelineError):
    """Nothing is pinned, so other sources would not help."""


def run(config: Config, workspace: Workspace) -> None:
    """Try the sources in order, and write the raw arrays of the first that gives the pinned ones.

    Raises:
        PipelineError: If no source does, with a reason for each, or if nothing is pinned, with the digests
            to pin.
    """
    data = config.data
    reasons = []
    for source in data.sources:
        try:
            loaded = sources.load(source, data, workspace.home)
            arrays = canonical(loaded, data.classes, data.reader.image_shape)
            with atomic(workspace.raw) as folder:
                folder.mkdir()
                digests = {name: _write(folder / f"{name}.npy", array) for name, array in arrays.items()}
                _compare(digests, data)
                if all(name in loaded for name in NAMES):
                    names, sizes = ({key: loaded[key] for key in keys} for keys in (NAMES, SIZES))
                    write_names(folder, names, sizes)
        except _UnpinnedError:
            raise
        except PipelineError as error:
            reasons.append(f"  {source.kind}: {error}")
            continue
        if reasons:
            say("\n".join(["These sources failed:", *reasons]))
        say(
            f"Fetched {data.name} from {source.kind}: {len(arrays['train_images']):,} training and "
            f"{len(arrays['test_images']):,} test images."
        )
        return
    raise PipelineError(
        "\n".join([f"No source of {data.name} gave the data pinned in conf/data:", *reasons])
        + "\nFix one of them, or add one that can be reached to data.sources. `pipeline pull` fetches the "
        "data if another clone sent them to a DVC remote. If they or data.reader were changed on purpose, "
        f"pin the result: with `pipeline add-data PATH --name {data.name} --update` if that command wrote "
        f"conf/data/{data.name}.yaml; else set data.sha256 to null, and the next run prints the digests."
    )


def _write(path: Path, array: Any) -> str:
    with path.open("wb") as file:
        return write_npy(array, file)


def _compare(digests: dict[str, str], data: DataSection) -> None:
    if not data.sha256:
        raise _UnpinnedError(_to_pin(data.name, digests))
    for name, pin in data.sha256.model_dump().items():
        if digests[name] != pin:
            raise PipelineError(f"its {name} has the SHA-256 {digests[name]}, not the pinned {pin}")


def _to_pin(name: str, digests: dict[str, str]) -> str:
    lines = [f"  {key}: {digest}" for key, digest in digests.items()]
    return "\n".join(
        [
            f"data.sha256 pins nothing, so a change of {name} would not be noticed, and nothing was "
            f"written. Look at the data, then put these lines into conf/data/{name}.yaml:",
            "sha256:",
            *lines,
        ]
    )
