"""What sources of local files share: their settings, and the batches in which they are read."""

import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from pipeline.config.section import Fraction, SourceSection
from pipeline.data.download import download
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection

Split = Literal["train", "validation", "test"]
PICTURES = 64  # maximum in a batch
_BYTES = 2**23  # approximate maximum size of the encoded pictures in a batch

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "t10k": "test",
    "publictest": "validation",  # of FER2013
    "privatetest": "test",
}
# Columns of tables that have the split.
SPLIT_COLUMNS = ("split", "usage", "subset")


class LocalSource(SourceSection):
    """Local files, or a file at an address; `pipeline add-data` writes these settings."""

    # A file or folder, absolute or relative to the repository, or an address.
    path: Annotated[str, Field(min_length=1)]
    # How many images it has; None if that is not known.
    images: Annotated[int, Field(ge=1)] | None = None
    # If the source does not say which images are for testing: for each class, a limit; images whose digest,
    # as a fraction, is below it are for testing.
    test_below: Annotated[tuple[Fraction, ...], Field(strict=False)] | None = None
    # The part of a class for which `add-data` chooses its limit. If None, a fifth.
    test_fraction: Fraction | None = None
    # What the source calls the classes, in the order of data.classes. If None, it uses the names in
    # data.classes, or numbers from 0.
    labels: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    # What to do about a picture that can't be read.
    unreadable: Literal["refuse", "skip"] = "refuse"


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"is not a valid regular expression: {error}") from None
    if groups != 1:
        raise ValueError("needs one group, in parentheses, for the class")
    return text


class PictureSource(LocalSource):
    """Pictures in folders."""

    # A regular expression that is searched for in a picture's path, and whose group is the class. If None,
    # the class is the name of a folder, or given by a table.
    label_pattern: Annotated[str, AfterValidator(_pattern)] | None = None


@dataclass(frozen=True)
class Batch:
    """Some images of a source, unchanged."""

    # What each image is called: its path below the source, with "/", or its position in a table.
    names: Sequence[str]
    # Encoded pictures, or the paths of their files, or pixels (n, height, width[, 3]).
    content: Sequence[bytes | str] | NDArray[Any]
    # The class of each image by name or number, or None if it follows from the name (see `layout`).
    labels: Sequence[str | int] | NDArray[Any] | None = None
    # The split that the source has the images in, or None if it does not say.
    split: Split | None = None


@dataclass
class Listing:
    """What a source records while it is read, in addition to its images."""

    # All folders, with "/"; they reveal classes without images.
    folders: list[str] = field(default_factory=list)
    # Tables next to the images that have their classes: {path: content}.
    tables: dict[str, bytes] = field(default_factory=dict)
    # The regular expression that finds the class in a path.
    pattern: str | None = None
    # Files that are not pictures of the data set, and why.
    skipped: list[tuple[str, str]] = field(default_factory=list)
    # How many images there will be, or None if that is not known.
    total: int | None = None
    # The names of the classes in the order of their numbers, if the source has them.
    classes: tuple[str, ...] | None = None


def split_of(name: str) -> Split | None:
    """Return the split named in a file or folder name, such as `train-00000-of-2.parquet` or `x_test`."""
    words = re.findall(r"t10k|[^\W\d_]+", name.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def split_in_row(text: str, row: str) -> Split | None:
    """Return the split that a column of splits has in a row, or None if it is empty there.

    Raises:
        PipelineError: If it is something else.
    """
    split = split_of(text)
    if text.strip() and not split:
        raise PipelineError(
            f"{row} has {text.strip()!r} as its split, which is not train, val or test: correct it, or "
            "rename the column if it is about something else"
        )
    return split


def is_hidden(path: str) -> bool:
    """Check whether a path, with "/", is hidden or was left by an operating system, so is not a picture."""
    return any(
        part.startswith((".", "__MACOSX")) or part.lower() in ("thumbs.db", "desktop.ini")
        for part in path.split("/")
    )


def in_batches(pictures: Iterable[tuple[str, bytes | str, int]]) -> Iterator[Batch]:
    """Group pictures, each with its name, content or path, and bytes held in memory, into batches."""
    names: list[str] = []
    contents: list[bytes | str] = []
    size = 0
    for name, content, bytes_held in pictures:
        names.append(name)
        contents.append(content)
        size += bytes_held
        if len(names) == PICTURES or size > _BYTES:
            yield Batch(names, contents)
            names, contents, size = [], [], 0
    if names:
        yield Batch(names, contents)


def update_command(path: str, name: str, options: Sequence[str] = ()) -> str:
    """Return the shell command that pins the changes of a source, and those that the options make."""
    return shlex.join(["pipeline", "add-data", path, "--name", name, *options, "--update"])


def is_address(path: str) -> bool:
    """Check whether `path` is an address to download from."""
    return re.match(r"https?://", path) is not None


def expanded(path: str) -> Path:
    """Replace a ~ at the beginning of a path by the home folder it stands for, if there is such a user."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (that of Path raises an error if there is none)


def local_path(path: str, home: Path) -> Path:
    """Resolve a path given in conf/.

    Raises:
        PipelineError: If it does not exist.
    """
    found = home / expanded(path)
    if not found.exists():
        raise PipelineError(f"there is no {found}: if it is elsewhere on this machine, change `path`")
    return found


def opened(path: str, data: "DataSection", home: Path) -> IO[bytes]:
    """Open a local file, or download it within the limits of `data`; the result is seekable.

    Raises:
        PipelineError: If it is not a file, or the download fails.
    """
    if is_address(path):
        return download(path, data)
    found = local_path(path, home)
    if not found.is_file():
        raise PipelineError(f"{found} is not a file")
    return found.open("rb")


def tables(
    path: str, data: "DataSection", home: Path, endings: tuple[str, ...]
) -> Iterator[tuple[Path | None, str, Callable[[], IO[bytes]]]]:
    """Yield the files of a source that may be one file or a folder of several.

    Yields:
        The path, or None if the source is one file; what to call the file; and a function that opens it.
    """
    if is_address(path) or not (folder := local_path(path, home)).is_dir():
        yield None, path.rpartition("/")[2], partial(opened, path, data, home)
        return
    for found in sorted(folder.rglob("*")):
        inner = found.relative_to(folder)
        is_table = found.name.lower().endswith(endings) and not found.is_dir()
        if is_table and not is_hidden(inner.as_posix()):
            yield found, inner.as_posix(), partial(opened, str(found), data, home)
