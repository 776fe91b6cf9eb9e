"""The code of a stage, which must stay as it is while the stage runs.

DVC records the code as it is when a stage has ended. After an edit in the meantime, it would take the result
for one of the new code: in dvc.lock, and through its cache in every clone.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.artifacts.workspace import here, sha256
from pipeline.config.modules import modules_in_use
from pipeline.config.schema import Config
from pipeline.config.section import value_at
from pipeline.console import Every
from pipeline.errors import PipelineError

_SECONDS_BETWEEN_CHECKS = 2.0


class StageCode:
    """The digests of the files that a stage declares in dvc.yaml, and of the options that it uses."""

    def __init__(self, declared: Mapping[str, Any], config: Config) -> None:
        """Read the code of this process.

        Raises:
            PipelineError: If params.yaml was composed with other code.
        """
        self.files = {path: here().root / path for path in declared["deps"] if path.startswith("src/")}
        self._keys = [key for key in declared["params"] if key.startswith("modules.")]
        sections = {key.partition(".")[0] for key in declared["params"]}
        self._values = config.model_dump(mode="json", include=sections)
        self._before = self._digests()
        self._again = Every(_SECONDS_BETWEEN_CHECKS)
        for key in self._keys:
            # `pipeline reproduce` fetches data with the sources of another commit than params.yaml has.
            if key != "modules.sources" and self._before[key] != value_at(self._values, key):
                kind = key.removeprefix("modules.")
                raise PipelineError(
                    f"The code of the {kind} was edited since params.yaml was composed: run `dvc repro`, or "
                    "the same command again."
                )

    def refuse_edits(self) -> None:
        """Check that the code is as it was.

        Raises:
            PipelineError: If it was edited.
        """
        now = self._digests()
        if edited := [name for name, digest in self._before.items() if now.get(name) != digest]:
            raise PipelineError(
                f"{', '.join(edited)}: edited while the stage runs, and DVC would record the result as that "
                "of the new code. Run `dvc repro` again. (To edit code during a training, train with "
                "`python -m pipeline`, which uses a copy of it.)"
            )
        self._again.restart()

    def refuse_edits_soon(self) -> None:
        """Do the same, unless that was done a moment ago."""
        if self._again.due:
            self.refuse_edits()

    def _digests(self) -> dict[str, str]:
        paths = [
            below
            for path in self.files.values()
            for below in (sorted(path.rglob("*.py")) if path.is_dir() else [path])
        ]
        files = {str(path.relative_to(here().root)): sha256(path) if path.is_file() else "" for path in paths}
        modules = {f"modules.{kind}": digest for kind, digest in modules_in_use(self._values).items()}
        return files | {key: modules[key] for key in self._keys}
