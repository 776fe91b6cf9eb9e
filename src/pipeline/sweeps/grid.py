"""Every combination of the values given: all trials are known before the first starts."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.artifacts.workspace import here, write_text
from pipeline.config.params import dump
from pipeline.errors import sentences
from pipeline.results.report import Report, TrialReport
from pipeline.sweeps.folder import Folder
from pipeline.sweeps.job import Job
from pipeline.sweeps.plan import Trial, grid
from pipeline.sweeps.sweep import (
    Sweep,
    composed_and_overrides,
    head_of,
    opened,
    run,
    space_text,
    stands,
    told,
)
from pipeline.trials.run_cache import RunCache
from pipeline.trials.trial import Outcome, outcome_of

if TYPE_CHECKING:
    from hydra.types import HydraContext
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Grid(Sweep):
    """Trials that are all known before the start."""

    trials: Sequence[Trial]
    known: dict[str, Outcome]  # by the trials' keys, before the start

    @property
    def unknown(self) -> list[Trial]:
        """The trials that some stage has yet to run for."""
        return [trial for trial in self.trials if trial.key not in self.known]

    @property
    def jobs(self) -> dict[str, tuple[str, ...]]:
        """The unknown trials."""
        return {trial.key: trial.overrides for trial in self.unknown}

    def look(self) -> Report:
        """How the trials stand now."""
        return replace(self.head, trials=tuple(map(self._stands, self.trials)))

    def _stands(self, trial: Trial) -> TrialReport:
        plain = TrialReport(trial.number, trial.key, trial.overrides, trial.differs)
        if outcome := self.known.get(trial.key):
            return replace(plain, state="known", **told(outcome))
        progress = self.folder.progress(trial.key)
        return stands(plain, progress) if progress else plain


def sweep(arguments: Sequence[str], hydra_context: "HydraContext", config: "DictConfig") -> None:
    """Run every combination of the values in `arguments`; the process ends with an exit code that tells.

    Args:
        arguments: the overrides of the command line.
        hydra_context: how Hydra composes.
        config: what Hydra composed for the sweep as a whole.
    """
    with sentences():
        repository = here()
        conf = repository.root / "conf"
        composed, overrides = composed_and_overrides(conf, arguments, hydra_context)
        trials = grid(conf, overrides)
        identity = sorted(trial.key for trial in trials)
        with opened(identity, trials[0].config, repository) as (folder, server):
            head = head_of(folder, composed, config, arguments, "grid", space_text(overrides))
            own = Grid(repository, folder, server, head, trials, _look_up(trials, folder))
            for trial in own.unknown:
                write_text(folder.params(trial.key), dump(trial.config))
            differs = {trial.key: trial.differs for trial in own.unknown}
            stops = composed.sweep.on_failure == "stop"
            job = Job(repository.root, folder.root, (), os.getpid(), stops, differs, server.address)
            sys.exit(run(own, job, hydra_context, config))


def _look_up(trials: Sequence[Trial], folder: Folder) -> dict[str, Outcome]:
    """What is known of the trials, by their keys, without running anything."""
    cache = RunCache(folder.code)
    found = {trial.key: cache.find(trial.config) for trial in trials}
    whole = {key: outcome_of(known) for key, known in found.items() if not known.missing}
    return {key: outcome for key, outcome in whole.items() if outcome}
