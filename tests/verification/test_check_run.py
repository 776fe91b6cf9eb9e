"""Damaged files in models/ and reports/ are named, whatever is in them now."""

import csv
import json
from functools import partial
from types import SimpleNamespace

import pytest

from pipeline.artifacts.workspace import Workspace, sha256
from pipeline.verification import runs
from pipeline.verification.runs import check_run

RUN = {"id": "1" * 32, "name": "letters-111111", "config": {}, "data": {}, "result": {"weights_sha256": "w"}}
METRICS = {"weights_sha256": "w", "test_accuracy": 0.75}


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path)
    for path, content in ((workspace.run, RUN), (workspace.metrics, METRICS)):
        path.parent.mkdir()
        path.write_text(json.dumps(content))
    workspace.predictions.write_text("label,predicted\n" + 3 * "a,a\n" + "a,b\n")
    return workspace


def said(workspace):
    return [problem.text for problem in check_run(workspace)]


def test_files_that_belong_together_pass(workspace):
    assert said(workspace) == []
    workspace.predictions.unlink()
    assert said(workspace) == []
    workspace.metrics.unlink()
    assert said(workspace) == []


@pytest.mark.parametrize(
    "content",
    ["", "[]", *(json.dumps(RUN | {"result": result}) for result in (None, 1, [], {}))],
)
def test_a_damaged_run_is_named(workspace, content):
    workspace.run.write_text(content)
    [text] = said(workspace)
    assert text.startswith("models/run.json is damaged: ")


@pytest.mark.parametrize("content", ["", "null", "[]", "{}", json.dumps(METRICS | {"test_accuracy": None})])
def test_damaged_metrics_are_named(workspace, content):
    workspace.metrics.write_text(content)
    [text] = said(workspace)
    assert text.startswith("reports/ is damaged ")


# A quote that opens a field makes one field of all lines after it.
@pytest.mark.parametrize(
    "content",
    ["", "label\na\n", "label,predicted\na\n", 'label,predicted\n"' + 50_000 * "a,a\n", b"\xff"],
    ids=["empty", "no column", "cut", "quote", "no text"],
)
@pytest.mark.parametrize("limit", [2**17, 2**24], ids=["short fields", "long fields"])
def test_damaged_predictions_are_named(workspace, content, limit, request):
    # A source of tables raises the limit for the whole process.
    request.addfinalizer(partial(csv.field_size_limit, csv.field_size_limit(limit)))
    workspace.predictions.write_bytes(content if isinstance(content, bytes) else content.encode())
    [text] = said(workspace)
    assert text.startswith("reports/ is damaged ")


def test_reports_of_other_weights_or_another_accuracy_are_named(workspace):
    workspace.metrics.write_text(json.dumps(METRICS | {"weights_sha256": "v", "test_accuracy": 0.7501}))
    assert said(workspace) == [
        "reports/metrics.json is about other weights than those in models/run.json.",
        "reports/predictions.csv and reports/metrics.json have different accuracies.",
    ]


@pytest.mark.parametrize(
    ("run", "weights", "fits"), [("1" * 32, "w", True), ("2", "w", False), ("1" * 32, "v", False)]
)
def test_a_model_file_that_names_another_run_or_other_weights_is_named(
    workspace, monkeypatch, run, weights, fits
):
    workspace.onnx.write_bytes(b"onnx")
    workspace.run.write_text(
        json.dumps(RUN | {"result": RUN["result"] | {"onnx_sha256": sha256(workspace.onnx)}})
    )
    about = SimpleNamespace(run=SimpleNamespace(id=run, name="letters-222222"), weights_sha256=weights)
    monkeypatch.setattr(runs, "load", lambda path: SimpleNamespace(description=about))
    text = "models/model.onnx belongs to the run letters-222222, not to letters-111111."
    assert said(workspace) == ([] if fits else [text])
