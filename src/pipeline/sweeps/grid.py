"""A grid: every combination of the given values; all trials are known before the first starts."""

from pipeline.artifacts.workspace import write_text
from pipeline.config.params import dump
from pipeline.config.schema import Config
from pipeline.results.report import Trial
from pipeline.sweeps.command import Command
from pipeline.sweeps.folder import Folder
from pipeline.sweeps.plan import grid
from pipeline.sweeps.sweep import Sweep
from pipeline.trials.outcome import outcome_of
from pipeline.trials.run_cache import RunCache


class Grid(Sweep):
    """A sweep over every combination of the given values, each configuration once."""

    sweeper = "grid"

    def __init__(self, command: Command) -> None:
        """Plan the trials.

        Raises:
            PipelineError: If a value is invalid.
        """
        super().__init__(command)
        self._trials, self._configs = grid(command.conf, command.overrides)

    @property
    def identity(self) -> list[str]:
        """The keys of its trials, independent of the order of the command line."""
        return sorted(self._configs)

    @property
    def config(self) -> Config:
        """The configuration of the first trial."""
        return self._configs[self._trials[0].key]

    def begin(self, folder: Folder) -> None:
        """Find the known trials, and write the values of the others for the jobs."""
        super().begin(folder)
        cache = RunCache(folder.code)
        for number, trial in enumerate(self._trials):
            config = self._configs[trial.key]
            known = cache.find(config)
            outcome = None if known.missing else outcome_of(known)
            if outcome:
                self._trials[number] = trial.ended("known", outcome)
            else:
                write_text(folder.params(trial.key), dump(config))

    def trials(self) -> list[Trial]:
        """Return the current state of all trials."""
        return [
            trial if trial.has_result else self.folder.trial(trial.key) or trial for trial in self._trials
        ]

    def waiting(self) -> dict[str, Trial]:
        """Return the trials that have no result yet, by the names of their files."""
        return {trial.key: trial for trial in self._trials if not trial.has_result}
