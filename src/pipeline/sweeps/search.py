"""A search: Optuna suggests the values of each trial in view of those before it.

A launcher is given numbered places, not values: a trial asks for its values when it starts, so that no
trial waits for the slowest of a batch. What was asked and told lies in a journal, from which the same
command goes on.
"""

import json
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from pipeline.artifacts.workspace import here, write_text
from pipeline.config.compose import compose
from pipeline.config.schema import Config, SweepSection
from pipeline.errors import PipelineError, sentences
from pipeline.processes.context import Pruning, TrialContext
from pipeline.results.report import SIGN, Report, TrialReport
from pipeline.sweeps.folder import NO_MORE, Folder, Progress
from pipeline.sweeps.job import Job
from pipeline.sweeps.space import Space, combination, combinations, refuse_useless, space_of
from pipeline.sweeps.sweep import Sweep, composed_and_overrides, head_of, opened, run, space_text, stands
from pipeline.training.pruning import WHY_PRUNED, open_study, pruner_of, storage_of
from pipeline.trials.run_cache import RunCache
from pipeline.trials.trial import key_of, outcome_of

if TYPE_CHECKING:
    from hydra.types import HydraContext
    from omegaconf import DictConfig

_PLACE = "place"  # a trial's own note in the journal


def search(arguments: Sequence[str], hydra_context: "HydraContext", config: "DictConfig") -> None:
    """Search the space that `arguments` span; the process ends with an exit code that tells.

    Args:
        arguments: the overrides of the command line.
        hydra_context: how Hydra composes.
        config: what Hydra composed for the sweep as a whole.
    """
    with sentences():
        repository = here()
        conf = repository.root / "conf"
        composed, overrides = composed_and_overrides(conf, arguments, hydra_context)
        settings = composed.sweep
        space = space_of(overrides, settings)
        base = tuple(str(part.input_line) for part in overrides if not part.is_sweep_override())
        first = refuse_useless(conf, base, space, settings)
        texts = space_text(overrides)
        # The others do not change what is suggested: with more trials or time the search goes on.
        how = settings.model_dump(mode="json", include={"objectives", "sampler", "pruner", "seed"})
        with opened([key_of(first.trial), json.dumps([texts, how])], first.trial, repository) as (
            folder,
            server,
        ):
            shutil.copytree(conf, folder.conf)
            _begin(folder, settings)
            is_grid = settings.sampler == "grid"
            places = min(settings.trials, combinations(space)) if is_grid else settings.trials
            deadline = time.time() + settings.seconds if settings.seconds else math.inf
            own = Search(
                repository,
                folder,
                server,
                head_of(folder, first, config, arguments, "optuna", texts),
                base,
                places,
                deadline,
                frozenset(place for place in range(1, places + 1) if _is_over(folder, place)),
            )
            job = SearchJob(
                repository.root,
                folder.root,
                keys=(),
                driver=os.getpid(),
                stop_at_failure=settings.on_failure == "stop",
                differs={},
                server=server.address,
                base=base,
                space=space,
                settings=settings,
                epochs=first.train.epochs,
                deadline=deadline,
            )
            sys.exit(run(own, job, hydra_context, config))


@dataclass(frozen=True)
class Search(Sweep):
    """Trials whose values are known when they start."""

    base: tuple[str, ...]  # the overrides that all trials have
    places: int
    deadline: float  # no trial starts after this time in seconds since 1970
    before: frozenset[int]  # the places that were over before the start

    @property
    def jobs(self) -> dict[str, tuple[str, ...]]:
        """The places that are not over."""
        return {str(place): self.base for place in range(1, self.places + 1) if place not in self.before}

    def look(self) -> Report:
        """How the trials stand now; those that the time did not suffice for are left out."""
        trials = [self._stands(place) for place in range(1, self.places + 1)]
        late = time.time() > self.deadline
        return replace(
            self.head, trials=tuple(trial for trial in trials if not late or trial.state != "waiting")
        )

    def _stands(self, place: int) -> TrialReport:
        progress = self.folder.progress(str(place))
        if not progress:
            return TrialReport(place, "", self.base, {})
        overrides = (*self.base, *(f"{key}={text}" for key, text in progress.differs.items()))
        trial = stands(TrialReport(place, progress.key, overrides, progress.differs), progress)
        return replace(trial, state="known") if place in self.before and trial.state == "done" else trial


@dataclass(frozen=True)
class SearchJob(Job):
    """What a launcher calls for each place of a search."""

    base: tuple[str, ...]
    space: Space
    settings: SweepSection
    epochs: int  # of a training, for hyperband
    deadline: float

    def run(self, key: str, folder: Folder) -> Progress | None:
        """Ask for values, run the trial that has them, and tell what it came to."""
        if time.time() > self.deadline:
            write_text(folder.stop, NO_MORE)
            return None
        trial = self._ask(folder, int(key))
        differs = {name: str(value) for name, value in trial.params.items()}
        begun = Progress("running", time.time(), differs=differs)
        try:
            config = compose(
                folder.conf,
                [*self.base, *(f"{name}={text}" for name, text in differs.items())],
                folder.code.root / "src" / "pipeline",
            )
            begun = replace(begun, key=key_of(config))
            folder.note(key, begun)
            ended = self._end(trial, config, begun, folder.log(key))
        except PipelineError as error:
            ended = replace(begun, state="failed", error=str(error), seconds=time.time() - begun.start)
        self._tell(folder, trial.number, ended)
        folder.note(key, ended)
        return ended

    def _ask(self, folder: Folder, place: int) -> FrozenTrial:
        """The trial of a place: the one that was killed or not told to its end, else a new one."""
        past = _trials_of(open_study(folder.journal), place)
        if past and past[-1].state != TrialState.FAIL:
            return past[-1]
        # A seed for each, so that what is suggested does not depend on what ran before in this process.
        [seed] = np.random.SeedSequence([self.settings.seed, place, len(past)]).generate_state(1).tolist()
        pruner = pruner_of(self.settings.pruner, self.epochs)
        study = open_study(folder.journal, self._sampler(seed, place), pruner)
        study.ask(dict(self.space)).set_user_attr(_PLACE, place)
        return _trials_of(study, place)[-1]

    def _end(self, trial: FrozenTrial, config: Config, begun: Progress, log: Path) -> Progress:
        """How the trial ended, now or ever before."""
        folder = Folder(self.folder)
        known = RunCache(folder.code).find(config)
        if not known.missing:
            seconds = time.time() - begun.start
            return replace(begun, state="known", outcome=outcome_of(known), seconds=seconds)
        ended = begun
        if WHY_PRUNED not in trial.user_attrs:
            context = TrialContext(differs=begun.differs)
            if self.settings.pruner != "none":
                pruner, [objective] = self.settings.pruner, self.settings.objectives
                pruning = Pruning(str(folder.journal), trial.number, pruner, objective, config.train.epochs)
                context = replace(context, pruning=pruning)
            ended = self.attempt(config, begun, log, context)
            trial = open_study(folder.journal).trials[trial.number]
        if why := trial.user_attrs.get(WHY_PRUNED):
            return replace(ended, state="pruned", error=why, seconds=time.time() - begun.start)
        return ended

    def _tell(self, folder: Folder, number: int, ended: Progress) -> None:
        study = open_study(folder.journal)
        if ended.outcome:
            values = [ended.outcome.values[name] for name in self.settings.objectives]
            study.tell(number, values, skip_if_finished=True)
        elif ended.state in ("pruned", "failed"):
            state = TrialState.PRUNED if ended.state == "pruned" else TrialState.FAIL
            study.tell(number, state=state, skip_if_finished=True)

    def _sampler(self, seed: int, place: int) -> BaseSampler:
        if self.settings.sampler == "tpe":
            return TPESampler(seed=seed)
        if self.settings.sampler == "random":
            return RandomSampler(seed=seed)
        # Optuna's own sampler of grids gives two that ask at once the same values.
        chosen = combination(self.space, place - 1, self.settings.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return PartialFixedSampler(chosen, RandomSampler(seed=seed))


def _begin(folder: Folder, settings: SweepSection) -> None:
    """Create the study, or end what in it was killed before it got its place."""
    up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    study = optuna.create_study(
        storage=storage_of(folder.journal),
        study_name=folder.root.name,
        directions=[up if SIGN[name] > 0 else down for name in settings.objectives],
        load_if_exists=True,
    )
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _PLACE not in trial.user_attrs:
            study.tell(trial.number, state=TrialState.FAIL)


def _trials_of(study: optuna.Study, place: int) -> list[FrozenTrial]:
    """All that a place has had, the latest last."""
    return [trial for trial in study.trials if trial.user_attrs.get(_PLACE) == place]


def _is_over(folder: Folder, place: int) -> bool:
    progress = folder.progress(str(place))
    return progress is not None and progress.state in ("done", "known", "pruned")
