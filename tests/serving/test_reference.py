"""Which model a name refers to, without MLflow."""

import json

import pytest

from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError
from pipeline.serving.reference import resolve

ACCURACY = {"test_accuracy": 0.9, "test_accuracy_low": 0.8, "test_accuracy_high": 0.95}


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path)
    for path in (workspace.onnx, workspace.metrics):
        path.parent.mkdir(parents=True, exist_ok=True)
    workspace.onnx.write_bytes(b"a model")
    workspace.run.write_text(json.dumps({"name": "digits-1", "result": {"weights_sha256": "a"}}))
    workspace.metrics.write_text(json.dumps(ACCURACY | {"weights_sha256": "a"}))
    workspace.model_card.write_text("# digits-1")
    return workspace


def test_the_workspaces_model_has_its_name_its_accuracy_and_its_card(workspace):
    found = resolve(None, workspace)
    assert (found.path, found.name) == (workspace.onnx, "digits-1")
    assert (found.test_accuracy, found.card) == ((0.9, 0.8, 0.95), workspace.model_card)


@pytest.mark.parametrize("metrics", [json.dumps(ACCURACY | {"weights_sha256": "b"}), "{}", "", "[]", "null"])
def test_reports_of_an_earlier_model_are_not_used_for_a_model_not_yet_evaluated(workspace, metrics):
    workspace.metrics.write_text(metrics)
    found = resolve(None, workspace)
    assert (found.name, found.test_accuracy, found.card) == ("digits-1", None, None)


def test_an_accuracy_without_its_interval_is_not_shown(workspace):
    workspace.metrics.write_text(json.dumps(ACCURACY | {"weights_sha256": "a", "test_accuracy_high": None}))
    assert resolve(None, workspace).test_accuracy is None


def test_without_a_model_in_the_workspace_the_models_of_runs_are_mentioned(tmp_path):
    with pytest.raises(PipelineError, match="`dvc repro` trains one; --model NAME uses the model of any run"):
        resolve(None, Workspace(tmp_path))


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("", "is empty"),
        ("models/model.keras", "name the ONNX file"),
        ("other.onnx", r"no model file other\.onnx"),
    ],
)
def test_a_reference_to_no_model_is_refused_with_the_alternatives(workspace, ref, reason):
    with pytest.raises(PipelineError, match=reason):
        resolve(ref, workspace)


def test_a_folder_of_the_same_name_does_not_hide_a_run(workspace, monkeypatch):
    monkeypatch.chdir(workspace.root)
    (workspace.root / "mnist" / "3").mkdir(parents=True)
    # It is looked for in MLflow, for which there are no settings here.
    with pytest.raises(PipelineError, match=r"params\.yaml"):
        resolve("mnist/3", workspace)
