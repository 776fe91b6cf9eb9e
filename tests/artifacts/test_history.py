"""The history of a training, written and read."""

from pathlib import Path

import pytest

from pipeline.artifacts.history import Epoch, History, read_history, write_history
from pipeline.errors import PipelineError

HEADER = "epoch,train_loss,train_accuracy,val_loss,val_accuracy,learning_rate,best\n"


def test_a_history_is_read_as_it_was_written(tmp_path: Path):
    epochs = [Epoch(1, 0.1 + 0.2, 0.9, 1 / 3, 0.85, 1e-5), Epoch(2, 0.2, 0.95, 0.4, 0.8, 1e-5)]
    write_history(tmp_path / "history.csv", History(epochs, best_epoch=1))
    history = read_history(tmp_path / "history.csv")
    assert history == History(epochs, best_epoch=1)
    assert history.best == epochs[0]


def test_a_history_without_validation_has_no_validation_values(tmp_path: Path):
    write_history(tmp_path / "history.csv", History([Epoch(1, 0.5, 0.8, None, None, 0.1)], best_epoch=1))
    assert read_history(tmp_path / "history.csv").best.val_loss is None


def test_a_training_in_progress_has_no_best_epoch(tmp_path: Path):
    write_history(tmp_path / "history.csv", History([Epoch(1, 0.5, 0.8, None, None, 0.1)], best_epoch=0))
    with pytest.raises(PipelineError, match="names no best epoch"):
        _ = read_history(tmp_path / "history.csv").best


@pytest.mark.parametrize(
    "text",
    [
        "epoch,loss\n1,0.5\n",
        HEADER + "1,x,0.8,,,0.001,1\n",
        HEADER + "1,0.5\n",
        HEADER + "2,0.5,0.8,,,0.001,1\n",
    ],
)
def test_a_file_that_train_did_not_write_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "history.csv"
    path.write_text(text)
    with pytest.raises(PipelineError, match=r"history\.csv"):
        read_history(path)


def test_a_missing_history_is_refused(tmp_path: Path):
    with pytest.raises(PipelineError, match=r"history\.csv"):
        read_history(tmp_path / "history.csv")
