"""The journal of a search survives when processes that write to it are killed."""

import os
import signal
import subprocess
import sys

import optuna
import pytest

from pipeline.artifacts.history import Epoch
from pipeline.errors import PrunedError
from pipeline.processes.context import Pruning
from pipeline.training.pruning import WHY_PRUNED, open_study, pruner_of, pruning_callback, storage_of

SPACE = {"x": optuna.distributions.FloatDistribution(0, 1)}


@pytest.fixture
def journal(tmp_path):
    path = tmp_path / "3f2a" / "journal.log"
    path.parent.mkdir()
    optuna.create_study(storage=storage_of(path), study_name="3f2a", direction="maximize")
    return path


def test_an_incomplete_line_is_ignored(journal):
    study = open_study(journal)
    study.tell(study.ask(SPACE), 0.5)
    whole = journal.read_bytes()
    study.ask(SPACE)
    journal.write_bytes(journal.read_bytes()[:-7])
    assert len(open_study(journal).trials) >= 1
    for value in (0.6, 0.7):
        after = open_study(journal)
        after.tell(after.ask(SPACE), value)
    assert journal.read_bytes().startswith(whole)
    values = [trial.value for trial in open_study(journal).trials if trial.state.is_finished()]
    assert values == [0.5, 0.6, 0.7]


def test_a_lock_of_a_killed_process_blocks_no_other(journal):
    holder = (
        "import sys, time; from pathlib import Path; from pipeline.training.pruning import _Lock;"
        "_Lock(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", holder, journal], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    study = open_study(journal)
    study.tell(study.ask(SPACE), 0.5)
    assert not list(journal.parent.glob("journal.log.lock*"))


def epoch(number, accuracy):
    return Epoch(number, 1.0, accuracy, 1.0, accuracy, 0.01)


def training(journal, pruner, accuracies):
    """Train with made-up accuracies to the end, or until it is pruned; return the number of epochs."""
    study = open_study(journal, pruner=pruner_of(pruner, len(accuracies)))
    trial = study.ask(SPACE)
    prune = pruning_callback(Pruning(str(journal), trial.number, pruner, "val_accuracy", len(accuracies)))
    try:
        for number, accuracy in enumerate(accuracies, start=1):
            prune(epoch(number, accuracy))
    except PrunedError:
        study.tell(trial.number, state=optuna.trial.TrialState.PRUNED)
    else:
        study.tell(trial.number, accuracies[-1])
    return number


def test_median_ends_trials_below_the_median_but_not_in_the_last_epoch(journal):
    good = [0.5, 0.7, 0.8]
    assert [training(journal, "median", good) for _ in range(5)] == [3] * 5
    assert training(journal, "median", [0.1, 0.1, 0.1]) == 1
    why = open_study(journal).trials[-1].user_attrs[WHY_PRUNED]
    assert why == "val_accuracy 10.00 % in epoch 1 of 3, worse than others by then (sweep.pruner=median)"
    assert training(journal, "median", [0.6, 0.65, 0.1]) == 2
    assert training(journal, "median", [0.5, 0.7, 0.1]) == 3
    assert training(journal, "median", [0.9, 0.9, 0.9]) == 3


def test_hyperband_ends_most_of_the_worse_ones_early(journal):
    ended = [training(journal, "hyperband", [0.9 - 0.04 * n] * 9) for n in range(15)]
    assert ended[0] == 9
    assert set(ended) <= {1, 3, 9}
    assert sum(ended[1:]) < 9 * 14 / 2


def test_an_epoch_that_a_checkpoint_repeats_is_judged_once_more_but_reported_once(journal):
    trial = open_study(journal).ask(SPACE)
    pruning = Pruning(str(journal), trial.number, "median", "val_accuracy", 3)
    pruning_callback(pruning)(epoch(1, 0.5))
    prune = pruning_callback(pruning)
    prune(epoch(1, 0.4))
    prune(epoch(2, 0.6))
    assert open_study(journal).trials[0].intermediate_values == {1: 0.5, 2: 0.6}
