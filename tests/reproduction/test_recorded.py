"""What a run was made from and what came out, as far as its files tell."""

import json
from dataclasses import replace

import pytest

from pipeline.artifacts.processed import Count, Dataset, write_dataset
from pipeline.artifacts.workspace import SPLITS, Workspace
from pipeline.config.params import dump_values
from pipeline.errors import PipelineError
from pipeline.reproduction import recorded
from pipeline.reproduction.recorded import origin_in_mlflow, recorded_here, recorded_in_mlflow
from pipeline.tracking.lineage import Code
from pipeline.tracking.mlflow_run import TEST_TAG
from pipeline.tracking.occasion import OCCASIONS, Occasion, keep

ID = "1" * 32
RUN = {"id": ID, "name": "letters-111111", "config": {}, "data": {}, "result": {"weights_sha256": "w"}}
HERE = Code("c" * 40, "main", "false")
FIRST = Occasion("0" * 12, 1000, {}, "letters-111111", "dvc repro", Code("a" * 40), {"processor": "first"})


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A workspace with the files of a run that was trained and evaluated, and a commit."""
    monkeypatch.setattr(recorded, "code_of", lambda repository: HERE)
    workspace = Workspace(tmp_path / "clone")
    for path, content in ((workspace.run, RUN), (workspace.metrics, {"test_accuracy": 0.5})):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
    workspace.params.write_text(dump_values({"seed": 3}))
    counts, digests = dict.fromkeys(SPLITS, Count(2, (1, 1))), {name: {"images": "d"} for name in SPLITS}
    write_dataset(workspace, Dataset("letters", ("a", "b"), (8, 8), {}, 1.0, counts, 0.5, 0.5, {}, digests))
    return workspace


@pytest.fixture
def in_mlflow(workspace, monkeypatch):
    """The files of the same run as MLflow has them, with an occasion; a lost model can't be downloaded."""

    def download(*_, model=True):
        if model and not files.model.exists():
            raise PipelineError("MLflow has no model")
        return "letters-111111", {TEST_TAG: "t"}, files

    files = Workspace(workspace.root.parent / "downloaded")
    for path, content in ((files.run, RUN), (files.metrics, {"test_accuracy": 0.5})):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
    files.params.write_text("seed: 3\n")
    files.model.touch()
    keep(FIRST, ID, files)
    monkeypatch.setattr(recorded, "download_run", download)
    return files


def test_a_run_of_the_workspace_is_read_from_its_files(workspace):
    keep(FIRST, ID, workspace)
    found = recorded_here(workspace)
    assert (found.label, found.config, found.run, found.metrics) == (
        *("letters-111111", {"seed": 3}, RUN),
        {"test_accuracy": 0.5},
    )
    assert (found.code, found.tags, len(found.test)) == (FIRST.code, {"processor": "first"}, 64)


def test_a_run_has_the_name_that_mlflow_shows_if_it_was_trained_here(workspace):
    keep(replace(FIRST, id="3" * 12, start=500, label="other", reproduction="reproduced"), ID, workspace)
    assert recorded_here(workspace).label == "letters-111111"
    keep(replace(FIRST, label="folder-111111"), ID, workspace)
    assert recorded_here(workspace).label == "folder-111111"


def test_the_code_is_that_of_the_first_training_and_not_of_one_that_rebuilt_it(workspace):
    later = replace(FIRST, id="2" * 12, start=2000, code=Code("b" * 40), tags={})
    rebuilt = replace(later, id="3" * 12, start=500, reproduction="reproduced")
    keep(rebuilt, ID, workspace)
    assert (recorded_here(workspace).code, recorded_here(workspace).tags) == (HERE, {})
    keep(later, ID, workspace)
    keep(FIRST, ID, workspace)
    assert recorded_here(workspace).code == FIRST.code


def test_of_a_training_outside_git_the_code_is_the_present_one_and_the_machine_is_known(workspace):
    keep(replace(FIRST, code=Code()), ID, workspace)
    assert (recorded_here(workspace).code, recorded_here(workspace).tags) == (HERE, FIRST.tags)


def test_the_occasions_in_mlflow_count_and_those_here_only_if_it_has_none(workspace, in_mlflow):
    keep(replace(FIRST, code=Code("b" * 40)), ID, workspace)
    for read in (recorded_in_mlflow, origin_in_mlflow):
        assert read("letters", None, workspace, workspace.root).code == Code("a" * 40)
    (in_mlflow.scratch / OCCASIONS / ID / f"{FIRST.id}.json").unlink()
    for read in (recorded_in_mlflow, origin_in_mlflow):
        assert read("letters", None, workspace, workspace.root).code == Code("b" * 40)


def test_a_run_with_nothing_to_compare_with_is_refused_before_any_work(workspace):
    for content in ("", "[]", "null"):
        workspace.metrics.write_text(content)
        with pytest.raises(PipelineError, match=r"metrics\.json of the run letters-111111 is damaged"):
            recorded_here(workspace)
    workspace.metrics.unlink()
    with pytest.raises(PipelineError, match="letters-111111 was not evaluated"):
        recorded_here(workspace)
    workspace.run.write_text(json.dumps({key: value for key, value in RUN.items() if key != "result"}))
    with pytest.raises(PipelineError, match="training of letters-111111 has not finished"):
        recorded_here(workspace)


def test_a_run_without_its_configuration_is_refused_but_lost_results_can_be_rebuilt(workspace, in_mlflow):
    assert recorded_in_mlflow("letters", None, workspace, workspace.root).test == "t"
    for lost in (in_mlflow.metrics, in_mlflow.model):
        lost.unlink()
        with pytest.raises(PipelineError):
            recorded_in_mlflow("letters", None, workspace, workspace.root)
    assert origin_in_mlflow("letters", None, workspace, workspace.root).config == {"seed": 3}
    for content in (b"seed: [", b"\xff", None):
        in_mlflow.params.unlink()
        if content is not None:
            in_mlflow.params.write_bytes(content)
        with pytest.raises(PipelineError, match="letters-111111 holds no configuration"):
            origin_in_mlflow("letters", None, workspace, workspace.root)
