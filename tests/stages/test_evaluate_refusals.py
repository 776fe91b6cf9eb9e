"""The stage evaluate refuses models, images and files that do not belong together."""

import shutil

import numpy as np
import pytest
from stripes import CONF, put_model, put_scores, record_test_split, write_model

from pipeline.config.params import dump, view
from pipeline.errors import PipelineError
from pipeline.plots import evaluation as plots
from pipeline.stages import evaluate
from pipeline.stages.__main__ import run as run_stage


def run(config, workspace):
    evaluate.run(view(config, ["evaluate"]), workspace)


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (lambda place: put_model(place, classes=4), r"in 4 classes.* in 3 classes"),
        (lambda place: put_model(place, image_shape=(5, 5)), r"\(5, 5\).*shape \(4, 5\)"),
        (lambda place: put_model(place, weight=np.nan), "2,300 of 2,300 .* not probabilities"),
        (lambda place: put_scores(place, [0.5, 0.4, 0.6]), "not probabilities"),
        (lambda place: put_scores(place, [0.33, 0.33, 0.33]), "not probabilities"),
        (lambda place: put_scores(place, [1.2, -0.2, 0.0]), "not probabilities"),
    ],
    ids=["classes", "shape", "diverged", "sum-too-large", "sum-too-small", "negative"],
)
def test_a_model_that_does_not_fit_is_refused_and_nothing_is_written(config, workspace, model, complaint):
    model(workspace)
    with pytest.raises(PipelineError, match=complaint):
        run(config, workspace)
    assert not workspace.metrics.parent.exists()


def test_a_model_of_another_run_is_refused_with_the_remedy(config, workspace):
    write_model(workspace.onnx, weight=5.0)
    remedy = r"not the model of the run stripes-1.* `dvc repro --force --single-item train`"
    with pytest.raises(PipelineError, match=remedy):
        run(config, workspace)
    assert not workspace.metrics.parent.exists()


def test_a_test_set_without_images_is_refused(config, workspace):
    for name in ("images", "labels"):
        path = workspace.processed / "test" / f"{name}.npy"
        np.save(path, np.load(path)[:0])
    record_test_split(workspace)
    with pytest.raises(PipelineError, match="no test images"):
        run(config, workspace)
    assert not workspace.metrics.parent.exists()


def test_metrics_are_written_only_after_all_other_reports(config, workspace, monkeypatch):
    # A figure is one module of the folder: this one fails.
    (workspace.root / "broken.py").write_text("def draw(evaluated):\n    raise OSError('no space left')\n")
    monkeypatch.setattr(plots, "__path__", [*plots.__path__, str(workspace.root)])
    with pytest.raises(OSError, match="no space left"):
        run(config, workspace)
    assert not workspace.metrics.exists()
    assert not workspace.figures.exists()


@pytest.mark.parametrize("missing", ["onnx", "history", "dataset", "run"])
def test_a_missing_file_is_named_in_the_refusal(config, workspace, missing):
    path = getattr(workspace, missing)
    path.unlink()
    with pytest.raises(PipelineError, match=path.name):
        run(config, workspace)


def test_if_no_report_can_be_written_an_earlier_stage_refuses_to_start(config, workspace):
    workspace.params.write_text(dump(config))
    shutil.copy(CONF.parent / "dvc.yaml", workspace.dvc_yaml)
    workspace.metrics.parent.touch()
    with pytest.raises(PipelineError, match=r"reports has to be a folder, for metrics\.json"):
        run_stage("preprocess", workspace)
