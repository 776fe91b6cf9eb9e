"""The model in hand: what each process of a server starts with, also one that takes the place of another."""

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline.artifacts.workspace import atomic, write_text
from pipeline.serving.reference import Resolved


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
        write_text(self.folder / "held.json", json.dumps(asdict(source), default=str))

    def get(self) -> Resolved:
        """What was put last."""
        found = json.loads((self.folder / "held.json").read_text(encoding="utf-8"))
        accuracy, card = found["test_accuracy"], found["card"]
        return Resolved(
            Path(found["path"]),
            found["name"],
            found["version"],
            (accuracy[0], accuracy[1], accuracy[2]) if accuracy else None,
            Path(card) if card else None,
        )
