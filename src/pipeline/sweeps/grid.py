"""A grid: every combination of the values given; all trials are known before the first starts."""

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
    """Every combination of the values given, each configuration once."""

    sweeper = "grid"

    def __init__(self, command: Command) -> None:
        """Plan the trials.

        Raises:
            PipelineError: a value is refused.
        """
        super().__init__(command)
        self._trials, self._configs = grid(command.conf, command.overrides)

    @property
    def identity(self) -> list[str]:
        """The keys of its trials, in whatever order they were typed."""
        return sorted(self._configs)

    @property
    def config(self) -> Config:
        """That of the first trial."""
        return self._configs[self._trials[0].key]

    def begin(self, folder: Folder) -> None:
        """Look up what is known, and write the values of what is not where the jobs find them."""
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
        """All, as they are now."""
        return [
            trial if trial.has_result else self.folder.trial(trial.key) or trial for trial in self._trials
        ]

    def waiting(self) -> dict[str, Trial]:
        """Those that some stage has yet to run for."""
        return {trial.key: trial for trial in self._trials if not trial.has_result}
