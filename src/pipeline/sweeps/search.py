"""A search: Optuna suggests the values of each trial based on the results of the previous ones.

The launcher is given numbers, not values: a trial asks for its values when it starts, so that no trial waits
for the slowest of a batch. Suggestions and results are kept in a journal, so that the same command continues.
"""

import json
import math
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from pipeline.artifacts.workspace import write_text
from pipeline.config.compose import compose
from pipeline.config.schema import Config, SweepSection
from pipeline.errors import PipelineError
from pipeline.processes.context import Pruning, TrialContext
from pipeline.results.report import SIGN, Trial
from pipeline.sweeps.command import Command
from pipeline.sweeps.folder import NO_MORE, Folder
from pipeline.sweeps.job import Job
from pipeline.sweeps.space import Space, combination, combinations, space_of, validate_space
from pipeline.sweeps.sweep import Sweep
from pipeline.training.pruning import WHY_PRUNED, open_study, pruner_of, storage_of
from pipeline.trials.outcome import key_of, outcome_of
from pipeline.trials.run_cache import RunCache

# The attribute with which the study's trials name the sweep's trial. After a failure, a new one has the same.
_NUMBER = "number"


class Search(Sweep):
    """A sweep whose trials get their values from Optuna when they start."""

    sweeper = "optuna"

    def __init__(self, command: Command) -> None:
        """Determine the search space, and validate it.

        Raises:
            PipelineError: If a value is invalid, or the space can't be searched.
        """
        super().__init__(command)
        self._settings = settings = command.composed.sweep
        self._space = space_of(command.overrides, settings)
        self._base = tuple(str(part.input_line) for part in command.overrides if not part.is_sweep_override())
        self._composed = validate_space(command.conf, self._base, self._space, settings)
        count = settings.n_trials
        self._count = min(count, combinations(self._space)) if settings.sampler == "grid" else count
        self._ended_before = frozenset[int]()  # the numbers of the trials that had ended before the start
        self._deadline = math.inf  # no trial starts after this time in seconds since 1970

    @property
    def identity(self) -> list[str]:
        """What decides the values. With more trials or more time, the same search continues."""
        include = {"objectives", "sampler", "pruner", "seed"}
        how = self._settings.model_dump(mode="json", include=include)
        # Of each listed option, since its file in conf/ may have other values than in an earlier search.
        keys = [key_of(each.trial) for each in self._composed]
        return [*keys, json.dumps([self.command.space, how])]

    @property
    def config(self) -> Config:
        """The configuration with the first value of each key."""
        return self._composed[0].trial

    def begin(self, folder: Folder) -> None:
        """Create the study, or continue it."""
        super().begin(folder)
        begin_study(folder, self._settings)
        if self._settings.timeout:
            self._deadline = time.time() + self._settings.timeout
        ended = ("done", "known", "pruned")
        trials = {number: folder.trial(str(number)) for number in range(1, self._count + 1)}
        self._ended_before = frozenset(
            number
            for number, trial in trials.items()
            if trial and trial.state in ended and not self._is_outdated(trial)
        )

    def trials(self) -> list[Trial]:
        """Return the current state of all trials, without those that can't start in time."""
        is_late = time.time() > self._deadline
        trials = [self._trial(number) for number in range(1, self._count + 1)]
        return [trial for trial in trials if not is_late or trial.state != "waiting"]

    def waiting(self) -> dict[str, Trial]:
        """Return the trials that have not ended, by the names of their files."""
        numbers = [number for number in range(1, self._count + 1) if number not in self._ended_before]
        return {str(number): Trial(number, overrides=self._base) for number in numbers}

    def job(self, server: str) -> "SearchJob":
        """Return what the launcher calls for each trial."""
        return SearchJob(
            **vars(super().job(server)),
            space=self._space,
            settings=self._settings,
            epochs=self.config.train.epochs,
            deadline=self._deadline,
        )

    def _is_outdated(self, trial: Trial) -> bool:
        """Return whether a trial has other values now.

        The identity says that, except of an option whose values show only next to a certain other option.
        """
        if sum((self.command.conf / key).is_dir() for key in self._space) < 2:
            return False
        folder = self.folder
        try:
            return (
                key_of(compose(folder.conf, trial.overrides, folder.code.root / "src" / "pipeline"))
                != trial.key
            )
        except PipelineError:
            return True

    def _trial(self, number: int) -> Trial:
        trial = self.folder.trial(str(number)) or Trial(number, overrides=self._base)
        is_known = number in self._ended_before and trial.state == "done"
        return replace(trial, state="known") if is_known else trial


@dataclass(frozen=True)
class SearchJob(Job):
    """The function that a launcher calls for each trial of a search."""

    space: Space
    settings: SweepSection
    epochs: int  # epochs of a training, for hyperband
    deadline: float  # no trial starts after this time in seconds since 1970

    def run(self, name: str, folder: Folder) -> Trial | None:
        """Run a trial with values of the study, and tell it the result; return None if the time was up."""
        if time.time() > self.deadline:
            write_text(folder.stop, NO_MORE)
            return None
        suggested = self.ask(folder, int(name))
        differs = {key: str(value) for key, value in suggested.params.items()}
        trial = self.trials[name]
        overrides = (*trial.overrides, *(f"{key}={text}" for key, text in differs.items()))
        trial = replace(trial, overrides=overrides, differs=differs, start=time.time())
        try:
            config = compose(folder.conf, overrides, folder.code.root / "src" / "pipeline")
            trial = replace(trial, key=key_of(config))
            folder.note(name, replace(trial, state="running"))
            ended = self.run_with_values(suggested, config, trial, folder.log(name))
        except PipelineError as error:
            ended = trial.ended("failed", error=str(error))
        self._tell(folder, suggested.number, ended)
        folder.note(name, ended)
        return ended

    def ask(self, folder: Folder, number: int) -> FrozenTrial:
        """Return the study's last trial for a trial of the sweep; a new one if it is missing or failed."""
        past = _trials_of(open_study(folder.journal), number)
        if past and past[-1].state != TrialState.FAIL:
            return past[-1]
        # Each has its own seed, so that suggestions do not depend on what ran before in this process.
        [seed] = np.random.SeedSequence([self.settings.seed, number, len(past)]).generate_state(1).tolist()
        pruner = pruner_of(self.settings.pruner, self.epochs)
        study = open_study(folder.journal, self._sampler(seed, number), pruner)
        study.ask(dict(self.space)).set_user_attr(_NUMBER, number)
        return _trials_of(study, number)[-1]

    def run_with_values(self, suggested: FrozenTrial, config: Config, trial: Trial, log: Path) -> Trial:
        """Run the trial, unless it is known or was pruned before, and return it as ended."""
        folder = Folder(self.folder)
        known = RunCache(folder.code).find(config)
        if not known.missing:
            return trial.ended("known", outcome_of(known))
        ended = trial
        if WHY_PRUNED not in suggested.user_attrs:
            context = TrialContext(differs=trial.differs)
            if self.settings.pruner != "none":
                pruner, [objective] = self.settings.pruner, self.settings.objectives
                pruning = Pruning(
                    str(folder.journal), suggested.number, pruner, objective, config.train.epochs
                )
                context = replace(context, pruning=pruning)
            ended = self.attempt(config, trial, log, context)
            suggested = open_study(folder.journal).trials[suggested.number]
        if why := suggested.user_attrs.get(WHY_PRUNED):
            return trial.ended("pruned", error=why)
        return ended

    def _tell(self, folder: Folder, number: int, ended: Trial) -> None:
        study = open_study(folder.journal)
        if ended.has_result:
            values = [ended.values[name] for name in self.settings.objectives]
            study.tell(number, values, skip_if_finished=True)
        elif ended.state in ("pruned", "failed"):
            state = TrialState.PRUNED if ended.state == "pruned" else TrialState.FAIL
            study.tell(number, state=state, skip_if_finished=True)

    def _sampler(self, seed: int, number: int) -> BaseSampler:
        if self.settings.sampler == "tpe":
            return TPESampler(seed=seed)
        if self.settings.sampler == "random":
            return RandomSampler(seed=seed)
        # Optuna's own grid sampler may give the same values to two trials that ask at the same time.
        chosen = combination(self.space, number - 1, self.settings.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return PartialFixedSampler(chosen, RandomSampler(seed=seed))


def begin_study(folder: Folder, settings: SweepSection) -> None:
    """Create the study, or end those of its trials that were killed before they had a number."""
    up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    try:
        study = optuna.create_study(
            storage=storage_of(folder.journal),
            study_name=folder.root.name,
            directions=[up if SIGN[name] > 0 else down for name in settings.objectives],
            load_if_exists=True,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(
            f"{folder.journal} can't be read ({error}): delete it and run the same command again. The trials "
            "that have ended are known without it."
        ) from None
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _NUMBER not in trial.user_attrs:
            study.tell(trial.number, state=TrialState.FAIL)


def _trials_of(study: optuna.Study, number: int) -> list[FrozenTrial]:
    """Return all trials of the study for a trial of the sweep, latest last."""
    return [trial for trial in study.trials if trial.user_attrs.get(_NUMBER) == number]
