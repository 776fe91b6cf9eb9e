"""The values that a sweep can optimise are read from a training's artifacts."""

import json

import pytest

from pipeline.artifacts.history import Epoch, History, write_history
from pipeline.errors import PipelineError
from pipeline.results.leaderboard import rank
from pipeline.results.report import Trial
from pipeline.trials.outcome import Outcome
from results.made_up import sweep


def outcome(folder, name, **result):
    result = {"weights_sha256": "0" * 64, "parameters": 7, "epochs": 1} | result
    data = {"splits": {"validation": {"images": 9, "sha256": "v" * 64}}}
    (folder / "run.json").write_text(json.dumps({"id": name, "name": name, "data": data, "result": result}))
    write_history(folder / "history.csv", History([Epoch(1, 0.5, 0.8, 0.4, 0.9, 0.1)], best_epoch=1))
    return Outcome.read(folder / "run.json", folder / "history.csv")


def test_trials_can_be_ranked_by_the_macro_f1_on_validation_images(tmp_path):
    found = {f1: outcome(tmp_path, f"run-{f1}", val_macro_f1=f1) for f1 in (0.4, 0.7, 0.6)}
    trials = [Trial(0, str(f1), differs={"n": str(f1)}).ended("done", each) for f1, each in found.items()]
    board = rank(sweep(trials, objectives=("val_macro_f1",)))
    assert [setting.mean("val_macro_f1") for setting in board.settings] == [0.7, 0.6, 0.4]


def test_a_trial_names_the_validation_images_that_its_values_were_measured_on(tmp_path):
    assert Trial(0).ended("done", outcome(tmp_path, "run")).validation == "v" * 64


def test_without_validation_images_there_is_none(tmp_path):
    assert "val_macro_f1" not in outcome(tmp_path, "run", val_macro_f1=None).values


@pytest.mark.parametrize("content", ["", "[]", "null", "{}", '{"result": {}}', '{"result": []}'])
def test_a_damaged_run_is_named_in_a_sentence(tmp_path, content):
    outcome(tmp_path, "run")
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(PipelineError, match=r"run\.json has no result of a training"):
        Outcome.read(tmp_path / "run.json", tmp_path / "history.csv")
