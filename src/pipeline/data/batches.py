"""What sources of local files have in common: their settings, and the pieces in which they are read."""

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
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
PICTURES = 64  # in a batch, at most
_BYTES = 2**23  # of encoded pictures in a batch, about

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
}


class LocalSource(SourceSection):
    """Files of one's own, or at an address; what `pipeline add-data` writes."""

    # A file or folder, absolute or relative to the repository, or an address.
    path: Annotated[str, Field(min_length=1)]
    # How many images it has; None: not known.
    images: Annotated[int, Field(ge=1)] | None = None
    # Per class, which images are for testing where the source does not say: those whose digest, as a
    # fraction, is below.
    test_below: Annotated[tuple[Fraction, ...], Field(strict=False)] | None = None
    # What the source calls the classes, in the order of data.classes; None: as data.classes does, or by
    # their numbers from 0.
    labels: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    # What to do about a picture that can't be read.
    unreadable: Literal["refuse", "skip"] = "refuse"


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    if groups != 1:
        raise ValueError("needs one group, in parentheses, which is the class")
    return text


class PictureSource(LocalSource):
    """Pictures in folders."""

    # A regular expression that is searched for in a picture's path, whose group is the class; None: its
    # folder is, or a table says it.
    label_pattern: Annotated[str, AfterValidator(_pattern)] | None = None


@dataclass(frozen=True)
class Batch:
    """Some images of a source, as it has them."""

    # What each is called: its path below the source, with "/", or its place in a table.
    names: Sequence[str]
    # Encoded pictures, or the paths of the files that they are in, or pixels (n, height, width[, 3]).
    content: Sequence[bytes | str] | NDArray[Any]
    # The class of each by name, or by number; None: the name says it (see `layout`).
    labels: Sequence[str] | NDArray[Any] | None = None
    # Which split the source has them in; None: it does not say.
    split: Split | None = None


@dataclass
class Listing:
    """What a source notes while it is read, beside its images."""

    # Folders, with "/" between: classes without an image are seen by them.
    folders: list[str] = field(default_factory=list)
    # Tables beside the images that say what they are: {path: content}.
    tables: dict[str, bytes] = field(default_factory=dict)
    # What a path is searched for, to find its class.
    pattern: str | None = None
    # What is no picture of the data set, and why.
    skipped: list[tuple[str, str]] = field(default_factory=list)
    # How many images there will be; None: not known.
    total: int | None = None
    # The names of the classes, where the source has them: in the order of its numbers.
    classes: tuple[str, ...] | None = None


def split_of(name: str) -> Split | None:
    """Which split a file or folder is of, by a word of its name: `train-00000-of-2.parquet`, `x_test`."""
    found = [SPLIT_NAMES[word] for word in re.split(r"[\W_\d]+", name.lower()) if word in SPLIT_NAMES]
    if "t10k" in re.split(r"[\W_]+", name.lower()):
        return "test"
    return found[0] if found else None


def is_hidden(path: str) -> bool:
    """Whether a system left it there, by its path with "/": nobody's pictures."""
    return any(
        part.startswith((".", "__MACOSX")) or part.lower() in ("thumbs.db", "desktop.ini")
        for part in path.split("/")
    )


def in_batches(pictures: Iterable[tuple[str, bytes | str, int]]) -> Iterator[Batch]:
    """Put pictures together.

    Args:
        pictures: the name, the content or path, and how many bytes of memory it holds.
    """
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


def update_command(path: str, name: str) -> str:
    """What pins the changes of a source anew, as it is typed in a shell."""
    return f"pipeline add-data {shlex.quote(path)} --name {name} --update"


def is_address(path: str) -> bool:
    """Whether `path` is to be downloaded."""
    return re.match(r"https?://", path) is not None


def local_path(path: str, home: Path) -> Path:
    """Where a path of conf/ is.

    Raises:
        PipelineError: there is nothing.
    """
    found = home / Path(path).expanduser()
    if not found.exists():
        raise PipelineError(f"there is no {found}")
    return found


@contextmanager
def opened(path: str, data: "DataSection", home: Path) -> Iterator[IO[bytes]]:
    """A file of one's own, or downloaded within the limits of `data`; it can be read from any place.

    Raises:
        PipelineError: it is no file, or the download failed.
    """
    if is_address(path):
        with download(path, data) as file:
            yield file
        return
    found = local_path(path, home)
    if not found.is_file():
        raise PipelineError(f"{found} is no file")
    with found.open("rb") as file:
        yield file


def tables(
    path: str, data: "DataSection", home: Path, endings: tuple[str, ...]
) -> Iterator[tuple[Path | None, str, AbstractContextManager[IO[bytes]]]]:
    """The files of a source that may be one file or a folder of several.

    Yields:
        Where it is, if it is one of several in a folder; what to call it; and what opens it.
    """
    if is_address(path) or not local_path(path, home).is_dir():
        yield None, path.rpartition("/")[2], opened(path, data, home)
        return
    folder = local_path(path, home)
    for found in sorted(folder.rglob("*")):
        inner = found.relative_to(folder)
        if found.name.lower().endswith(endings) and not is_hidden(inner.as_posix()):
            yield found, inner.as_posix(), opened(str(found), data, home)
