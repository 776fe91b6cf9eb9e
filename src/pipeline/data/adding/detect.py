"""Which kind of source files are, by their content."""

import tarfile
import zipfile
from pathlib import Path

from pipeline.errors import PipelineError

_NO_DATA = {
    b"\x80\x02": "is a pickle, which could run code when it is read",
    b"\x80\x03": "is a pickle, which could run code when it is read",
    b"\x80\x04": "is a pickle, which could run code when it is read",
    b"\x80\x05": "is a pickle, which could run code when it is read",
    b"\x89HDF": "is an HDF5 file (or a .mat file of version 7.3, which is one)",
    b"Rar!": "is a RAR archive",
    b"7z\xbc\xaf": "is a 7z archive",
    b"\x89PNG": "is one picture",
    b"\xff\xd8\xff": "is one picture",
}


def detect(given: str, home: Path) -> str:
    """The kind of a source: the name of a module in `data/sources`.

    Raises:
        PipelineError: there is nothing, or nothing that could be read.
    """
    path = home / given
    if path.is_dir():
        return "folder"
    if not path.exists():
        raise PipelineError(f"There is no {path}.")
    if not path.is_file():
        raise PipelineError(f"{path} is neither a file nor a folder.")
    with path.open("rb") as file:
        begin = file.read(8)
    for magic, reason in _NO_DATA.items():
        if begin.startswith(magic):
            raise PipelineError(f"{path} {reason}: give a folder of pictures, an archive or a table.")
    if zipfile.is_zipfile(path) or tarfile.is_tarfile(path):
        return "archive"
    raise PipelineError(
        f"{path} is nothing that images are read from: give a folder of pictures or an archive of one."
    )
