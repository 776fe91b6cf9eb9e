"""The commands in messages mean to a shell what they say, whatever a folder or a run is called."""

import re
import shlex
from dataclasses import replace

import pytest

from pipeline.artifacts.integrity import refuse_damaged
from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.errors import PipelineError
from pipeline.registry.journal import Entry
from pipeline.registry.registered import lost_version
from pipeline.results.leaderboard import rank
from pipeline.results.summary import note_of
from pipeline.tracking import lineage
from pipeline.tracking.store import mlflow_command
from results.made_up import sweep, trial

ODD = "my data; rm x"


def test_only_the_damaged_file_is_deleted(tmp_path):
    path = tmp_path / ODD / "images.npy"
    path.parent.mkdir()
    path.touch()
    with pytest.raises(PipelineError) as refused:
        refuse_damaged(Workspace(tmp_path), {path: "0" * 64})
    assert shlex.split(str(refused.value).rpartition("\n")[2]) == ["rm", "-f", str(path)]


def test_the_address_of_a_database_is_one_word(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = "postgresql://host/name?sslmode=require&application_name=x"
    settings = TrackingSection.model_construct(uri=uri)
    command = mlflow_command("runs restore --run-id 1", settings, Workspace(tmp_path))
    assert shlex.split(command) == [
        f"MLFLOW_TRACKING_URI={uri}",
        "mlflow",
        "runs",
        "restore",
        "--run-id",
        "1",
    ]


def test_the_name_of_a_run_is_one_word():
    entry = Entry(1, "", "", "promote", "champion", None, "1", ODD, "1", "")
    command = re.search("`(pipeline promote .*?)`", lost_version(entry, "letters"))[1]
    assert shlex.split(command)[:3] == ["pipeline", "promote", ODD]
    report = sweep([trial(seed="0")])
    report = replace(report, trials=(replace(report.trials[0], run=ODD),))
    command = re.search("`(pipeline adopt .*?)`", note_of(report, rank(report)))[1]
    assert shlex.split(command) == ["pipeline", "adopt", ODD]


def test_the_folder_that_git_is_to_trust_is_one_word(tmp_path, capsys):
    lineage._warn_of_other_owner(tmp_path / ODD)
    command = capsys.readouterr().err.strip().partition("To allow it: ")[2]
    assert shlex.split(command)[-1] == str(tmp_path / ODD)
