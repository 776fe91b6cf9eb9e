from dataclasses import replace

import pytest

from pipeline.errors import PipelineError
from pipeline.sweeps.report import Report, TrialReport, reports
from pipeline.workspace import Workspace

TRIAL = TrialReport(
    number=1,
    key="ab" * 8,
    overrides=("experiment=smoke", "train.learning_rate=0.01"),
    differs={"train.learning_rate": "0.01"},
    state="done",
    run_id="cd" * 16,
    run="smoke-seed0-cdcd",
    values={"val_accuracy": 0.97, "val_loss": 0.1, "parameters": 2410},
    seconds=4.2,
)
SWEEP = Report(
    id="3f2a" * 4,
    name="smoke-sweep-3f2a",
    command=("experiment=smoke", "train.learning_rate=0.01,0.003"),
    sweeper="grid",
    launcher="joblib",
    objectives=("val_accuracy",),
    space={"train.learning_rate": ["0.01", "0.003"]},
    tracking={"uri": None, "experiment": "image-classifier", "run_name": None, "timeout": 5.0},
    start=1_700_000_000_000,
    trials=(TRIAL, replace(TRIAL, number=2, state="failed", error="It is “NaN”.", values={})),
)


def test_a_report_is_read_as_it_was_written(tmp_path):
    SWEEP.write(tmp_path)
    assert Report.read(tmp_path) == SWEEP
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"trials": [{}]}', '{"trials": 1}'])
def test_a_damaged_report_is_named_in_a_sentence(tmp_path, content):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(PipelineError, match=r"report\.json is no report of a sweep"):
        Report.read(tmp_path)


def test_the_latest_sweep_comes_first_and_a_damaged_one_is_left_out(tmp_path, capsys):
    repository = Workspace(tmp_path)
    for number, start in enumerate((1, 3, 2)):
        replace(SWEEP, id=str(number), start=start).write(repository.sweeps / str(number))
    (repository.sweeps / "x").mkdir()
    (repository.sweeps / "x" / "report.json").write_text("{")
    trial = Workspace(repository.scratch / "trials" / "x")
    assert [(folder.name, sweep.id) for folder, sweep in reports(trial)] == [
        ("1", "1"),
        ("2", "2"),
        ("0", "0"),
    ]
    assert "x/report.json is no report" in capsys.readouterr().err
