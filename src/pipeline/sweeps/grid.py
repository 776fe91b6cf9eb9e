"""A grid: every combination of the given values; all trials are known before the first starts."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts.workspace import write_text
from pipeline.config.compose import compose_each
from pipeline.config.params import dump
from pipeline.config.schema import Config
from pipeline.errors import PipelineError
from pipeline.results.report import Trial
from pipeline.sweeps.command import Command
from pipeline.sweeps.folder import Folder
from pipeline.sweeps.sweep import Sweep
from pipeline.trials.outcome import key_of, outcome_of
from pipeline.trials.run_cache import RunCache

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


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


def grid(conf: Path, overrides: Sequence["Override"]) -> tuple[list[Trial], dict[str, Config]]:
    """Return a trial for every combination of values, each configuration once, and the configurations by key.

    Raises:
        PipelineError: If a value is invalid, or can't be enumerated.
    """
    swept = {override.get_key_element() for override in overrides if override.is_sweep_override()}
    combinations = list(itertools.product(*map(_values, overrides)))
    composed = compose_each(conf, [[f"{key}={value}" for key, value in chosen] for chosen in combinations])
    trials: dict[str, Trial] = {}
    configs: dict[str, Config] = {}
    for chosen, composition in zip(combinations, composed, strict=True):
        key = key_of(composition.trial)
        if key not in trials:
            texts = tuple(f"{name}={value}" for name, value in chosen)
            differs = {name: value for name, value in chosen if name in swept}
            trials[key] = Trial(len(trials) + 1, key, texts, differs)
            configs[key] = composition.trial
    return list(trials.values()), configs


def _values(override: "Override") -> list[tuple[str, str]]:
    """Return (key, value) for each value that an override names."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [(key, override.get_value_element_as_str())]
    if not override.is_discrete_sweep():
        raise PipelineError(
            f"{override.input_line} names a range, and a grid needs values: list them, or search with "
            "hydra/sweeper=optuna."
        )
    values = [(key, value) for value in override.sweep_string_iterator()]
    if not values:
        raise PipelineError(f"{override.input_line} names no value.")
    return values
