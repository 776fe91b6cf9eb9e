"""A made-up data set in every form in which a source may serve it."""

import functools
import gzip
import hashlib
import io
import struct
from pathlib import Path

import numpy as np

from pipeline.artifacts.workspace import Workspace, sha256
from pipeline.config.compose import compose
from pipeline.config.params import view
from pipeline.config.schema import RawDigests
from pipeline.data.sources.debian import DebianSource
from pipeline.data.sources.idx import IdxSource
from pipeline.data.sources.keras import KerasSource
from pipeline.data.sources.npm import NpmSource

REPOSITORY = Path(__file__).parents[3]

_rng = np.random.default_rng(0)
RAW = {
    "train_images": _rng.integers(0, 256, (30, 5, 4), dtype=np.uint8),
    "train_labels": np.arange(30, dtype=np.uint8) % 10,
    "test_images": _rng.integers(0, 256, (10, 5, 4), dtype=np.uint8),
    "test_labels": np.arange(10, dtype=np.uint8) % 10,
}
IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx_files(**changed: np.ndarray) -> dict[str, bytes]:
    arrays = (RAW | changed).values()
    return {
        name: bytes([0, 0, 8, a.ndim]) + struct.pack(f">{a.ndim}I", *a.shape) + a.tobytes()
        for name, a in zip(IDX_NAMES, arrays, strict=True)
    }


def gzipped(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(content) for name, content in files.items()}


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, **dict(zip(("x_train", "y_train", "x_test", "y_test"), RAW.values(), strict=True)))
    return file.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@functools.cache
def pins() -> RawDigests:
    digests = {}
    for name, array in RAW.items():
        file = io.BytesIO()
        np.save(file, array.astype(np.int32) if "labels" in name else array)
        digests[name] = hashlib.sha256(file.getvalue()).hexdigest()
    return RawDigests(**digests)


@functools.cache
def digits():
    return compose(REPOSITORY / "conf", ["data=digits"])


def config(*from_sources, **changes):
    composed = digits()
    reader = composed.data.reader.model_copy(update={"image_size": (5, 4)})
    made = {"name": "made", "sources": from_sources, "reader": reader, "sha256": pins(), "timeout": 5.0}
    changes = made | changes
    return view(composed.model_copy(update={"data": composed.data.model_copy(update=changes)}), ["data"])


def keras(url: str = "http://localhost:1", dataset: str = "mnist") -> KerasSource:
    return KerasSource(kind="keras", dataset=dataset, url=url)


def idx(path: Path | str) -> IdxSource:
    return IdxSource(kind="idx", path=str(path))


NPM = NpmSource(kind="npm", package="made-data", version="1.0.0")
DEBIAN = DebianSource(kind="debian", package="made-data")


def send(handler, content: bytes, claimed: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content) if claimed is None else claimed))
    handler.end_headers()
    handler.wfile.write(content)


def assert_fetched(workspace: Workspace) -> None:
    assert {path.name: sha256(path) for path in workspace.raw.iterdir()} == {
        f"{name}.npy": digest for name, digest in pins().model_dump().items()
    }
    assert [path.name for path in workspace.raw.parent.iterdir()] == ["raw"]


def assert_nothing_written(workspace: Workspace) -> None:
    assert not workspace.raw.exists()
    assert not [path for path in workspace.root.rglob("*") if path.is_file()]
