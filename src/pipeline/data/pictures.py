"""Find pictures below a folder by names as in tables, which may lack the folder or the file extension."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from pipeline.data.batches import Split, is_hidden, split_of
from pipeline.data.reader import ENDINGS
from pipeline.errors import PipelineError


class Pictures:
    """All pictures below one folder, which is listed when the first one is searched for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._resolved: dict[Path, Path] = {}
        self._named: set[str] = set()
        self._was_searched = False

    def find(self, name: str, split: Split | None) -> str | None:
        """Find a picture.

        The name is the end of its path, with or without the file extension. Without a split, a test picture
        is chosen only if there is no other, since test pictures often have no labels.

        Returns:
            Its path below the folder, with "/", or None if there is no such picture.

        Raises:
            PipelineError: If the name is ambiguous.
        """
        name = name.replace("\\", "/")
        found = [path for path in self._by_stem.get(_stem(name), ()) if _is_called(path, name)]
        if len(found) > 1:
            # As in Kaggle's CIFAR-10: train/1.png has a label, test/1.png has none.
            suitable = [path for path in found if _suits(split_above(path), split)]
            if len(suitable) != 1:
                raise PipelineError(
                    f"{name} may be {found[0]} or {found[1]}: write the path into the table, or give a "
                    "folder that has only the right pictures"
                )
            found = suitable
        self._was_searched |= bool(found)
        self._named.update(found)
        return found[0] if found else None

    def locate(self, folder: Path, name: str, split: Split | None) -> tuple[str, Path]:
        """Locate a picture that a table names: at that path below the table's folder, or as `find` does.

        Returns:
            What to call it, and its path.

        Raises:
            ValueError: If it is outside of the folder.
            PipelineError: If the name is ambiguous.
        """
        name = name.replace("\\", "/")
        path = folder / name
        self._refuse_outside(path, folder)
        if path.is_file():
            self._named.add(path.relative_to(self._folder).as_posix())
        elif found := self.find(name, split):
            path = self._folder / found
            self._refuse_outside(path, self._folder)
            return found, path
        return name, path

    def _refuse_outside(self, path: Path, folder: Path) -> None:
        if folder not in self._resolved:
            self._resolved[folder] = folder.resolve()
        path.resolve().relative_to(self._resolved[folder])

    def unnamed(self) -> Iterator[str]:
        """Yield the pictures that no table has named, provided that `find` has found any."""
        if self._was_searched:
            yield from (path for paths in self._by_stem.values() for path in paths if path not in self._named)

    @property
    def are_in_folders(self) -> bool:
        """Whether they are in several folders other than those of splits, which may be classes."""
        folders = {path.rpartition("/")[0] for paths in self._by_stem.values() for path in paths}
        return (
            len({tuple(part for part in folder.split("/") if not split_of(part)) for folder in folders}) > 1
        )

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for folder, folders, files in os.walk(self._folder):
            folders[:] = sorted(inner for inner in folders if not is_hidden(inner))
            inside = Path(folder).relative_to(self._folder)
            for file in sorted(files):
                if file.lower().endswith(ENDINGS) and not is_hidden(file):
                    found.setdefault(_stem(file), []).append((inside / file).as_posix())
        return found


def split_above(path: str, label: str = "") -> Split | None:
    """Return the split that a folder above a picture is named after, if there is one.

    A folder that is called like the label of the picture is named after its class.
    """
    folders = [part for part in path.split("/")[:-1] if part != label]
    return next((split for folder in folders if (split := split_of(folder))), None)


def _suits(found: Split | None, wanted: Split | None) -> bool:
    return found == wanted if wanted else found != "test"


def _bare(path: str) -> str:
    """Return a path without the file extension of a picture."""
    return path.rpartition(".")[0] if path.lower().endswith(ENDINGS) else path


def _stem(path: str) -> str:
    return _bare(path).rpartition("/")[2]


def _is_called(path: str, name: str) -> bool:
    return any(f"/{known}".endswith(f"/{name}") for known in (path, _bare(path)))
