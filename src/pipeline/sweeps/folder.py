"""The folder of a sweep, where the driver and its jobs meet while it runs."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.results.report import Trial

NOW, NO_MORE = "now", "no more"


@dataclass(frozen=True)
class Folder:
    """What a sweep has on disk, `.pipeline/sweeps/ID`."""

    root: Path

    @property
    def code(self) -> Workspace:
        """The code, and conf/, as they were when the sweep started."""
        return Workspace(self.root / "code")

    @property
    def conf(self) -> Path:
        """conf/ as it was when the sweep started."""
        return self.code.root / "conf"

    @property
    def journal(self) -> Path:
        """What a search knows of its trials."""
        return self.root / "journal.log"

    @property
    def stop(self) -> Path:
        """If it exists no trial starts any more; if it says NOW, those that run end."""
        return self.root / "stop"

    def stops_now(self) -> bool:
        """Whether trials are to end."""
        return self.stop.exists() and self.stop.read_text(encoding="utf-8") == NOW

    def log(self, name: str) -> Path:
        """What a trial's stages have printed."""
        return self.root / "trials" / f"{name}.log"

    def params(self, name: str) -> Path:
        """A trial's values, as params.yaml has them."""
        return self.root / "trials" / f"{name}.yaml"

    def trial(self, name: str) -> Trial | None:
        """The trial as it was noted last; None: it has not started."""
        try:
            return Trial.of(json.loads(self._trial(name).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def note(self, name: str, trial: Trial) -> None:
        """Note the trial as it is now."""
        write_text(self._trial(name), json.dumps(asdict(trial), indent=2) + "\n")

    def forget(self, name: str) -> None:
        """Have a trial start anew."""
        self._trial(name).unlink(missing_ok=True)

    def _trial(self, name: str) -> Path:
        return self.root / "trials" / f"{name}.json"
