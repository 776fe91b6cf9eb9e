"""The model in hand: what each process of a server starts with, also one that takes the place of another."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from pipeline.artifacts.workspace import atomic, write_text
from pipeline.serving.reference import Resolved

_RESOLVED = TypeAdapter(Resolved)


@dataclass(frozen=True)
class Held:
    """The model in use, in a folder that all processes of one server share.

    A process that starts later has the same model as the others, whatever became of the file that was named
    and whichever version was in use at first.

    Args:
        folder: is there, and ends with the server.
    """

    folder: Path

    def begin(self, source: Resolved) -> None:
        """Keep a copy of the file: a training may replace it, or write half of it, at any time."""
        copy = self.folder / "model.onnx"
        with atomic(copy) as temporary:
            shutil.copyfile(source.path, temporary)
        self.put(replace(source, path=copy))

    def put(self, source: Resolved) -> None:
        """Have the processes that start from now on begin with `source`."""
        write_text(self.folder / "held.json", _RESOLVED.dump_json(source).decode())

    def get(self) -> Resolved:
        """What was put last."""
        return _RESOLVED.validate_json((self.folder / "held.json").read_bytes())
