import json
import time
from dataclasses import replace

import pytest
from made_up import sweep, trial

from pipeline.artifacts.history import Epoch
from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError
from pipeline.results.report import Report, reports
from pipeline.sweeps.folder import Folder
from pipeline.trials.outcome import Outcome

SWEEP = sweep(
    [
        trial(values={"val_accuracy": 0.97, "val_loss": 0.1, "parameters": 2410}, seed="0"),
        trial(values={}, state="failed", error="It is “NaN”.", seed="1"),
    ]
)


def test_a_report_is_read_as_it_was_written(tmp_path):
    SWEEP.write(tmp_path)
    assert Report.read(tmp_path) == SWEEP
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"trials": [{}]}', '{"trials": 1}'])
def test_a_damaged_report_is_named_in_a_sentence(tmp_path, content):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(PipelineError, match=r"report\.json is not a report of a sweep"):
        Report.read(tmp_path)


@pytest.mark.parametrize(
    "change", [{"start": None}, {"start": "1"}, {"tracking": {"colour": 1}}, {"tracking": 1}]
)
def test_a_report_of_an_older_version_is_named_in_a_sentence(tmp_path, change):
    SWEEP.write(tmp_path)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PipelineError, match=r"report\.json is not a report of a sweep"):
        Report.read(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"overrides": 1}'])
def test_a_trial_whose_file_is_damaged_counts_as_not_started(tmp_path, content):
    folder = Folder(tmp_path)
    folder.note("1", SWEEP.trials[0])
    assert folder.trial("1") == SWEEP.trials[0]
    path = tmp_path / "trials" / "1.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert folder.trial("1") is None


def test_the_latest_sweep_comes_first_and_a_damaged_one_is_left_out(tmp_path, capsys):
    repository = Workspace(tmp_path)
    for number, start in enumerate((1, 3, 2)):
        replace(SWEEP, id=str(number), start=start).write(repository.sweeps / str(number))
    (repository.sweeps / "x").mkdir()
    (repository.sweeps / "x" / "report.json").write_text("{")
    inside = Workspace(repository.scratch / "trials" / "x")
    assert [(folder.name, found.id) for folder, found in reports(inside)] == [
        ("1", "1"),
        ("2", "2"),
        ("0", "0"),
    ]
    assert "x/report.json is not a report" in capsys.readouterr().err


@pytest.fixture
def begun():
    return replace(trial(values={}, state="running", seed="0"), start=time.time() - 5)


def test_a_trial_that_ended_has_its_seconds_and_its_outcome(begun):
    best = Epoch(2, 0.3, 0.9, 0.2, 0.95, 0.001)
    outcome = Outcome("3f" * 16, "smoke-3f3f3f", "ab" * 32, 2410, 3, best, 0.9)
    done = begun.ended("done", outcome)
    assert (done.state, done.run_id, done.run) == ("done", outcome.id, outcome.run)
    assert done.values == outcome.values
    assert done.seconds == pytest.approx(5, abs=2)
    assert replace(begun, start=None).ended("known", outcome).seconds is None


def test_only_a_trial_that_was_trained_to_its_end_has_a_result(begun):
    failed = begun.ended("failed", error="It diverged.")
    assert (failed.error, failed.run_id, failed.values) == ("It diverged.", None, {})
    states = ("waiting", "running", "known", "done", "pruned", "failed", "stopped")
    assert [state for state in states if replace(begun, state=state).has_result] == ["known", "done"]


def test_a_clock_that_was_set_back_makes_no_negative_time(begun):
    assert replace(begun, start=time.time() + 3600).ended("stopped").seconds == 0
