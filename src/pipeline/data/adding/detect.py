"""Detect the kind of a source by the content of its files."""

import sys
import tarfile
import zipfile
import zlib
from itertools import islice
from pathlib import Path

from pipeline.data.batches import is_address
from pipeline.data.formats import idx
from pipeline.data.formats.delimited import ENDINGS, SEPARATORS, TAB_ENDINGS, unzipped
from pipeline.data.formats.zip import members
from pipeline.data.layout import TABLES
from pipeline.data.sources import csv
from pipeline.errors import PipelineError

_NO_DATA: dict[tuple[bytes, ...], str] = {
    (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"): "is a pickle, which could run code when it is read",
    (b"\x89HDF",): "is an HDF5 file (or a .mat file of version 7.3, which is one)",
    (b"Rar!",): "is a RAR archive",
    (b"7z\xbc\xaf",): "is a 7z archive",
    (b"\x89PNG", b"\xff\xd8\xff"): "is one picture",
}
if sys.version_info < (3, 14):
    _NO_DATA[(b"\x28\xb5\x2f\xfd",)] = "is compressed with zstd, which needs Python 3.14 or later"
_MEMBERS = 1000  # members of a zip that are looked at to detect its kind
_ENDINGS = {
    "parquet": (".parquet",),
    "npz": (".npz", ".npy"),
    "mat": (".mat",),
    "csv": (*ENDINGS, *TAB_ENDINGS),
    "archive": (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst"),
}


def detect(given: str, home: Path) -> str:
    """Return the kind of a source: the name of a module in `data/sources`.

    A relative path is relative to `home`.

    Raises:
        PipelineError: If nothing is there, or nothing that could be read.
    """
    path = home / given
    if is_address(given):
        return _by_name(given)
    if path.is_dir():
        return _of_folder(path)
    if not path.exists():
        raise PipelineError(f"There is no {path}.")
    if not path.is_file():
        raise PipelineError(f"{path} is neither a file nor a folder.")
    with path.open("rb") as file:
        begin = file.read(8)
    for magics, reason in _NO_DATA.items():
        if begin.startswith(magics):
            raise PipelineError(f"{path} {reason}: give a folder of pictures, an archive or a table.")
    if begin.startswith(b"PAR1"):
        return "parquet"
    if begin.startswith(b"MATLAB"):
        return "mat"
    if begin.startswith((b"\x93NUMPY", b"\x00\x00\x08")):
        raise PipelineError(f"{path} is a single array: give the folder that contains the other ones too.")
    # In this order, since a tar archive may end with a zip archive.
    if tarfile.is_tarfile(path):
        return "archive"
    if zipfile.is_zipfile(path):
        return _of_zip(path)
    if _is_table(path):
        return "csv"
    called = next((end for kind in _ENDINGS.values() for end in kind if path.name.lower().endswith(end)), "")
    hint = f" (its name ends in {called}, but it is damaged or something else)" if called else ""
    raise PipelineError(
        f"{path} can't be read as images{hint}: give a folder of pictures, an archive of one, or a CSV, NPZ, "
        "Parquet, IDX or MATLAB file."
    )


def _of_folder(folder: Path) -> str:
    """Detect the kind of a folder by the files in it."""
    names = [path.name for path in folder.iterdir() if path.is_file()]
    has_folders = any(path.is_dir() for path in folder.iterdir())
    files = [name.lower() for name in names]
    if any(idx.raw_name(name) for name in files):
        return "idx"
    if any(name in TABLES for name in files):
        return "folder"
    for kind, endings in _ENDINGS.items():
        found = [name for name in names if name.lower().endswith(endings)]
        # Next to class folders, a table may be about anything.
        if kind == "csv" and has_folders and not any(csv.has_images(folder / name) for name in found):
            continue
        if kind != "archive" and found:
            return kind
    # As in a clone of a Hugging Face repository, which has a folder .git.
    inner = {path.suffix.lower() for path in folder.glob("[!.]*/*") if path.is_file()}
    if inner == {".parquet"} or (not inner and any(folder.glob("[!.]*/*/*.parquet"))):
        return "parquet"
    return "csv" if csv.labels_pictures(folder) else "folder"


def _of_zip(path: Path) -> str:
    """Detect the kind of a zip file by the names of its first members."""
    try:
        with path.open("rb") as file:
            names = {member.filename for _, member in islice(members(file), _MEMBERS)}
    except (zipfile.BadZipFile, NotImplementedError):
        return "archive"  # Reading it will report what is wrong with it.
    if "[Content_Types].xml" in names:
        raise PipelineError(f"{path} is an Excel workbook: save its table as CSV in UTF-8, and give that.")
    return "npz" if names and all(name.endswith(".npy") for name in names) else "archive"


def _by_name(address: str) -> str:
    """Detect the kind of a download by the end of its name."""
    name = address.partition("?")[0].lower()
    for kind, endings in _ENDINGS.items():
        if name.endswith(endings):
            return kind
    raise PipelineError(
        f"{address}: the kind of file can't be told from its name, which must end in .zip, .tar, .tar.gz, "
        ".csv, .npz, .parquet or .mat."
    )


def _is_table(path: Path) -> bool:
    """Check whether the first line has several names or numbers with a separator between them."""
    with path.open("rb") as file:
        try:
            begin = unzipped(file).read(100_000)
            first = begin.decode("utf-8-sig", "ignore").partition("\n")[0]
        except (OSError, EOFError, zlib.error):
            return False
    has_several = any(separator in first for separator in SEPARATORS)
    return has_several and first.replace("\r", "").replace("\t", "").isprintable()
