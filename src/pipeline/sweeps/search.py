"""A search: Optuna suggests the values of each trial in view of those before it.

A launcher is given numbers, not values: a trial asks for its values when it starts, so that no trial waits
for the slowest of a batch. What was asked and answered lies in a journal: the same command goes on with it.
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
from pipeline.sweeps.space import Space, combination, combinations, refuse_useless, space_of
from pipeline.sweeps.sweep import Sweep
from pipeline.training.pruning import WHY_PRUNED, open_study, pruner_of, storage_of
from pipeline.trials.outcome import key_of, outcome_of
from pipeline.trials.run_cache import RunCache

_NUMBER = "number"  # of the sweep's trial, an attribute of the study's: one that failed is asked for again


class Search(Sweep):
    """Trials whose values are known when they start."""

    sweeper = "optuna"

    def __init__(self, command: Command) -> None:
        """Plan the space.

        Raises:
            PipelineError: a value is refused, or the space can't be searched.
        """
        super().__init__(command)
        self._settings = settings = command.composed.sweep
        self._space = space_of(command.overrides, settings)
        self._base = tuple(str(part.input_line) for part in command.overrides if not part.is_sweep_override())
        self._first = refuse_useless(command.conf, self._base, self._space, settings)
        count = settings.n_trials
        self._count = min(count, combinations(self._space)) if settings.sampler == "grid" else count
        self._before = frozenset[int]()  # the trials that were over before the start
        self._deadline = math.inf  # no trial starts after this time in seconds since 1970

    @property
    def identity(self) -> list[str]:
        """What decides about the values; with more trials or more time the search goes on."""
        include = {"objectives", "sampler", "pruner", "seed"}
        how = self._settings.model_dump(mode="json", include=include)
        return [key_of(self.config), json.dumps([self.command.space, how])]

    @property
    def config(self) -> Config:
        """That with the first of all values."""
        return self._first.trial

    def begin(self, folder: Folder) -> None:
        """Create the study, or go on with it."""
        super().begin(folder)
        begin_study(folder, self._settings)
        if self._settings.timeout:
            self._deadline = time.time() + self._settings.timeout
        over = ("done", "known", "pruned")
        noted = {number: folder.trial(str(number)) for number in range(1, self._count + 1)}
        self._before = frozenset(number for number, trial in noted.items() if trial and trial.state in over)

    def trials(self) -> list[Trial]:
        """All, as they are now; those that the time did not suffice for are left out."""
        late = time.time() > self._deadline
        trials = [self._trial(number) for number in range(1, self._count + 1)]
        return [trial for trial in trials if not late or trial.state != "waiting"]

    def waiting(self) -> dict[str, Trial]:
        """Those that are not over."""
        numbers = [number for number in range(1, self._count + 1) if number not in self._before]
        return {str(number): Trial(number, overrides=self._base) for number in numbers}

    def job(self, server: str) -> "SearchJob":
        """What the launcher calls for each."""
        return SearchJob(
            **vars(super().job(server)),
            space=self._space,
            settings=self._settings,
            epochs=self._first.train.epochs,
            deadline=self._deadline,
        )

    def _trial(self, number: int) -> Trial:
        trial = self.folder.trial(str(number)) or Trial(number, overrides=self._base)
        is_known = number in self._before and trial.state == "done"
        return replace(trial, state="known") if is_known else trial


@dataclass(frozen=True)
class SearchJob(Job):
    """What a launcher calls for each trial of a search."""

    space: Space
    settings: SweepSection
    epochs: int  # of a training, for hyperband
    deadline: float

    def run(self, name: str, folder: Folder) -> Trial | None:
        """Ask for values, run the trial that has them, and tell the study its result."""
        if time.time() > self.deadline:
            write_text(folder.stop, NO_MORE)
            return None
        asked = self.ask(folder, int(name))
        differs = {key: str(value) for key, value in asked.params.items()}
        trial = self.trials[name]
        overrides = (*trial.overrides, *(f"{key}={text}" for key, text in differs.items()))
        trial = replace(trial, overrides=overrides, differs=differs, start=time.time())
        try:
            config = compose(folder.conf, overrides, folder.code.root / "src" / "pipeline")
            trial = replace(trial, key=key_of(config))
            folder.note(name, replace(trial, state="running"))
            ended = self.run_with_values(asked, config, trial, folder.log(name))
        except PipelineError as error:
            ended = trial.ended("failed", error=str(error))
        self._tell(folder, asked.number, ended)
        folder.note(name, ended)
        return ended

    def ask(self, folder: Folder, number: int) -> FrozenTrial:
        """The study's trial for a trial of the sweep: one that was killed or not told of, else a new one."""
        past = _trials_of(open_study(folder.journal), number)
        if past and past[-1].state != TrialState.FAIL:
            return past[-1]
        # A seed for each, so that what is suggested does not depend on what ran before in this process.
        [seed] = np.random.SeedSequence([self.settings.seed, number, len(past)]).generate_state(1).tolist()
        pruner = pruner_of(self.settings.pruner, self.epochs)
        study = open_study(folder.journal, self._sampler(seed, number), pruner)
        study.ask(dict(self.space)).set_user_attr(_NUMBER, number)
        return _trials_of(study, number)[-1]

    def run_with_values(self, asked: FrozenTrial, config: Config, trial: Trial, log: Path) -> Trial:
        """The trial as it ended, now or ever before."""
        folder = Folder(self.folder)
        known = RunCache(folder.code).find(config)
        if not known.missing:
            return trial.ended("known", outcome_of(known))
        ended = trial
        if WHY_PRUNED not in asked.user_attrs:
            context = TrialContext(differs=trial.differs)
            if self.settings.pruner != "none":
                pruner, [objective] = self.settings.pruner, self.settings.objectives
                pruning = Pruning(str(folder.journal), asked.number, pruner, objective, config.train.epochs)
                context = replace(context, pruning=pruning)
            ended = self.attempt(config, trial, log, context)
            asked = open_study(folder.journal).trials[asked.number]
        if why := asked.user_attrs.get(WHY_PRUNED):
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
        # Optuna's own sampler of grids gives two that ask at once the same values.
        chosen = combination(self.space, number - 1, self.settings.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return PartialFixedSampler(chosen, RandomSampler(seed=seed))


def begin_study(folder: Folder, settings: SweepSection) -> None:
    """Create the study, or end what in it was killed before it had its number."""
    up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    study = optuna.create_study(
        storage=storage_of(folder.journal),
        study_name=folder.root.name,
        directions=[up if SIGN[name] > 0 else down for name in settings.objectives],
        load_if_exists=True,
    )
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _NUMBER not in trial.user_attrs:
            study.tell(trial.number, state=TrialState.FAIL)


def _trials_of(study: optuna.Study, number: int) -> list[FrozenTrial]:
    """All that the study has for a trial of the sweep, the latest last."""
    return [trial for trial in study.trials if trial.user_attrs.get(_NUMBER) == number]
