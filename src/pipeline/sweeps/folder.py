"""The folder of a sweep, through which the driver and its jobs communicate."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.results.report import Trial

NOW, NO_MORE = "now", "no more"  # contents of the file `stop`


@dataclass(frozen=True)
class Folder:
    """The files of a sweep in `.pipeline/sweeps/ID`."""

    root: Path

    @property
    def code(self) -> Workspace:
        """The snapshot of the code and conf/ from the start of the sweep."""
        return Workspace(self.root / "code")

    @property
    def conf(self) -> Path:
        """The snapshot of conf/ from the start of the sweep."""
        return self.code.root / "conf"

    @property
    def journal(self) -> Path:
        """The journal of a search, which Optuna writes."""
        return self.root / "journal.log"

    @property
    def stop(self) -> Path:
        """A file whose existence means that no trial starts; if it contains NOW, running trials end, too."""
        return self.root / "stop"

    def stops_now(self) -> bool:
        """Return whether running trials are to end."""
        return self.stop.exists() and self.stop.read_bytes() == NOW.encode()

    def log(self, name: str) -> Path:
        """Return the file with the output of a trial's stages."""
        return self.root / "trials" / f"{name}.log"

    def params(self, name: str) -> Path:
        """Return the file with a trial's values, in the form of params.yaml."""
        return self.root / "trials" / f"{name}.yaml"

    def trial(self, name: str) -> Trial | None:
        """Read the last noted state of a trial; return None if it has not started, or the file is damaged."""
        return Trial.read(self._trial(name))

    def note(self, name: str, trial: Trial) -> None:
        """Write the current state of a trial."""
        write_text(self._trial(name), json.dumps(asdict(trial), indent=2) + "\n")

    def forget(self, name: str) -> None:
        """Delete the state of a trial, so that it starts from scratch."""
        self._trial(name).unlink(missing_ok=True)

    def _trial(self, name: str) -> Path:
        return self.root / "trials" / f"{name}.json"
