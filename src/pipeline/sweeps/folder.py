"""What a sweep keeps on disk while it runs, where its driver and its jobs meet."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.results.report import State
from pipeline.trials.trial import Outcome

NOW, NO_MORE = "now", "no more"


@dataclass(frozen=True)
class Progress:
    """How a trial stands that was started."""

    state: State
    start: float  # seconds since 1970
    seconds: float | None = None
    error: str = ""
    outcome: Outcome | None = None
    # Of a trial that got its values only when it started.
    key: str = ""
    differs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Folder:
    """What a sweep keeps on disk, `.pipeline/sweeps/ID`."""

    root: Path

    @property
    def code(self) -> Workspace:
        """The code as it was when the sweep started."""
        return Workspace(self.root / "code")

    @property
    def conf(self) -> Path:
        """conf/ as it was when the sweep started, if its trials are composed later than that."""
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

    def log(self, key: str) -> Path:
        """What a trial's stages have printed."""
        return self.root / "trials" / f"{key}.log"

    def params(self, key: str) -> Path:
        """A trial's values, as params.yaml has them."""
        return self.root / "trials" / f"{key}.yaml"

    def progress(self, key: str) -> Progress | None:
        """How a trial stands; None: it has not started."""
        try:
            noted = json.loads(self._progress(key).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return Progress(**noted | {"outcome": noted["outcome"] and Outcome.of(noted["outcome"])})

    def note(self, key: str, progress: Progress) -> None:
        """Note how a trial stands."""
        write_text(self._progress(key), json.dumps(asdict(progress), indent=2) + "\n")

    def forget(self, key: str) -> None:
        """Have a trial start anew."""
        self._progress(key).unlink(missing_ok=True)

    def _progress(self, key: str) -> Path:
        return self.root / "trials" / f"{key}.json"
