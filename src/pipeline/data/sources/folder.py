"""A folder of pictures: one folder per class, or a table of classes; optionally below train, val and test."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.data.batches import Batch, Listing, PictureSource, in_batches, is_hidden, local_path
from pipeline.data.collect import loader
from pipeline.data.layout import TABLES
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection


class FolderSource(PictureSource):
    """`path` is the folder."""

    kind: Literal["folder"]


def batches(source: FolderSource, data: "DataSection", home: Path, listing: Listing) -> Iterator[Batch]:
    """Yield the pictures below the folder, in the order of their names."""
    folder = local_path(source.path, home)
    if not folder.is_dir():
        raise PipelineError(f"{folder} is not a folder")
    files = list_files(folder, listing)
    for name in files.copy():
        if name.rpartition("/")[2] in TABLES:
            listing.tables[name] = (folder / name).read_bytes()
            del files[name]
    listing.total, listing.pattern = len(files), source.label_pattern
    yield from in_batches((name, f"{folder}/{name}", 0) for name in files)


load = loader(batches)


def list_files(folder: Path, listing: Listing) -> dict[str, os.stat_result]:
    """Return all files below a folder that are not hidden, by path with "/" and sorted by it.

    Links that lead out of the folder are skipped. Folders and skipped files are added to `listing`.
    """
    inside = folder.resolve()
    found: dict[str, os.stat_result] = {}

    def walk(here: Path, prefix: str) -> None:
        with os.scandir(here) as entries:
            for entry in entries:
                name = f"{prefix}{entry.name}"
                if is_hidden(entry.name):
                    continue
                if entry.is_symlink() and not _stays(Path(entry.path), inside):
                    listing.skipped.append((name, "is a link that leads nowhere or out of the folder"))
                elif entry.is_dir(follow_symlinks=False):
                    listing.folders.append(name)
                    walk(Path(entry.path), f"{name}/")
                elif entry.is_file():
                    found[name] = entry.stat()
                else:
                    listing.skipped.append(
                        (name, "is not a file, but a link to a folder, a pipe or a device")
                    )

    walk(folder, "")
    return dict(sorted(found.items()))


def _stays(link: Path, inside: Path) -> bool:
    """Check whether a link leads to something inside a folder."""
    try:
        return link.resolve(strict=True).is_relative_to(inside)
    except (OSError, RuntimeError):
        return False
