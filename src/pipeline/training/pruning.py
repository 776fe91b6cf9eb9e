"""The Optuna study of a search, in a journal that survives killed processes, and its pruning.

This module is below the stages, since training asks it after each epoch whether to continue.
"""

from collections.abc import Callable
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

from pipeline.artifacts.history import Epoch
from pipeline.console import percent
from pipeline.errors import PrunedError
from pipeline.processes.context import Pruning

# The attribute of a pruned trial that says why it was pruned.
WHY_PRUNED = "why_pruned"


def storage_of(journal: Path) -> JournalStorage:
    """Return the storage of the studies in `journal`, which is created if it is missing."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return JournalStorage(JournalFileBackend(str(journal), _Lock(journal)))


def open_study(
    journal: Path, sampler: BaseSampler | None = None, pruner: BasePruner | None = None
) -> optuna.Study:
    """Return the study in `journal`, which is named after the folder of the journal."""
    return optuna.load_study(
        study_name=journal.parent.name, storage=storage_of(journal), sampler=sampler, pruner=pruner
    )


def pruner_of(name: str, epochs: int) -> BasePruner:
    """Return the pruner called `name` for trainings of `epochs` epochs.

    median: stops a training whose best epoch so far is worse than the median of the others at that point.
    hyperband: Li et al., JMLR 18 (2018), 185; the best third continues after 1, 3, 9, ... epochs.
    """
    if name == "none":
        return NopPruner()
    return MedianPruner() if name == "median" else HyperbandPruner(max_resource=epochs)


def pruning_callback(pruning: Pruning) -> Callable[[Epoch], None]:
    """Return a function to call after each epoch, which raises PrunedError if the trial is to be pruned."""
    study = open_study(Path(pruning.journal), pruner=pruner_of(pruning.pruner, pruning.epochs))
    [before] = [trial for trial in study.get_trials(deepcopy=False) if trial.number == pruning.trial]
    trial = optuna.trial.Trial(study, before._trial_id)

    def prune(epoch: Epoch) -> None:
        value = getattr(epoch, pruning.objective)
        # A training that resumes from a checkpoint may repeat an epoch.
        if epoch.epoch not in before.intermediate_values:
            trial.report(value, epoch.epoch)
        # After the last epoch there is nothing left to save.
        if epoch.epoch < pruning.epochs and trial.should_prune():
            reached = percent(value) if pruning.objective == "val_accuracy" else f"{value:.4f}"
            why = (
                f"{pruning.objective} {reached} in epoch {epoch.epoch} of {pruning.epochs}, worse than "
                f"others by then (sweep.pruner={pruning.pruner})"
            )
            trial.set_user_attr(WHY_PRUNED, why)
            raise PrunedError(why)

    return prune


class _Lock(BaseJournalFileLock):
    """A lock that is released when its process dies; a half-written line left by that is removed."""

    def __init__(self, journal: Path) -> None:
        self._journal, self._lock = journal, FileLock(journal.with_suffix(".lock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        with self._journal.open("r+b") as file:
            if file.seek(0, 2) and (file.seek(-1, 2), file.read())[1] != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self._lock.release()
