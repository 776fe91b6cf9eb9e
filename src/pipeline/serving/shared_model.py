"""The model in use, shared by the processes of one server, including those started later."""

from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from pipeline.artifacts.workspace import copy_file, write_text
from pipeline.serving.reference import Resolved

_RESOLVED = TypeAdapter(Resolved)


@dataclass(frozen=True)
class SharedModel:
    """The model in use, recorded in a folder that all processes of one server share.

    A process that starts later loads the same model as the others, even if the original file was replaced
    or another version has taken over since.
    """

    folder: Path

    def put_copy(self, source: Resolved) -> None:
        """Record a copy of the file of `source`, since a training may replace the file at any time."""
        copy = self.folder / "model.onnx"
        copy_file(source.path, copy)
        self.put(replace(source, path=copy))

    def put(self, source: Resolved) -> None:
        """Record `source` as the model that processes load from now on."""
        write_text(self.folder / "model.json", _RESOLVED.dump_json(source).decode())

    def get(self) -> Resolved:
        """Return the model that was recorded last."""
        return _RESOLVED.validate_json((self.folder / "model.json").read_bytes())
