"""The Optuna study of a search, in a journal that killed processes leave whole, and its pruning.

It lies below the stages, since training asks it between epochs whether to go on.
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
from pipeline.errors import PrunedError
from pipeline.processes.context import Pruning

# A trial's own note in the journal of why it was ended between epochs.
WHY_PRUNED = "why_pruned"


def storage_of(journal: Path) -> JournalStorage:
    """The studies in `journal`, which is created if it is missing."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return JournalStorage(JournalFileBackend(str(journal), _Lock(journal)))


def open_study(
    journal: Path, sampler: BaseSampler | None = None, pruner: BasePruner | None = None
) -> optuna.Study:
    """The study in `journal`, named after the folder that the journal lies in."""
    return optuna.load_study(
        study_name=journal.parent.name, storage=storage_of(journal), sampler=sampler, pruner=pruner
    )


def pruner_of(name: str, epochs: int) -> BasePruner:
    """The pruner of that name, for trainings of so many epochs.

    median: a training whose best epoch so far is worse than the median of the others' by then is ended.
    hyperband: Li et al., JMLR 18 (2018), 185; after 1, 3, 9, ... epochs the best third goes on.
    """
    if name == "none":
        return NopPruner()
    return MedianPruner() if name == "median" else HyperbandPruner(max_resource=epochs)


def pruning_callback(pruning: Pruning) -> Callable[[Epoch], None]:
    """What to call after each epoch of a search's training; it raises PrunedError when others do better."""
    study = open_study(Path(pruning.journal), pruner=pruner_of(pruning.pruner, pruning.epochs))
    [before] = [trial for trial in study.get_trials(deepcopy=False) if trial.number == pruning.trial]
    trial = optuna.trial.Trial(study, before._trial_id)

    def prune(epoch: Epoch) -> None:
        value = getattr(epoch, pruning.objective)
        # A training that goes on from a checkpoint may come by an epoch once more.
        if epoch.epoch not in before.intermediate_values:
            trial.report(value, epoch.epoch)
        # After its last epoch a model is whole.
        if epoch.epoch < pruning.epochs and trial.should_prune():
            why = (
                f"{pruning.objective} {value:.4g} in epoch {epoch.epoch} of {pruning.epochs} was worse than "
                f"other trials had it by then (sweep.pruner={pruning.pruner})"
            )
            trial.set_user_attr(WHY_PRUNED, why)
            raise PrunedError(why)

    return prune


class _Lock(BaseJournalFileLock):
    """A lock that ends with the process that holds it; the half line that this may leave is cut off."""

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
