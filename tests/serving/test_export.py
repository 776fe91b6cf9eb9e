"""A model written by `pipeline export` computes in its tools what the evaluated file does."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts.onnx_file import load
from pipeline.artifacts.processed import read_split
from pipeline.artifacts.workspace import Workspace
from pipeline.config.compose import compose
from pipeline.environment import use_threads
from pipeline.errors import PipelineError
from pipeline.serving import export as exporting
from pipeline.serving.export import export
from pipeline.stages import fetch, preprocess, train

use_threads(1)
CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("digits"))
    config = compose(CONF, ["experiment=smoke", "train.epochs=1", "train.xla=false"])
    for stage in (fetch, preprocess, train):
        stage.run(config, workspace)
    return workspace


@pytest.mark.parametrize("form", ["onnx", "keras", "litert", "saved-model"])
def test_each_format_is_written_and_checked(workspace, tmp_path, form):
    path = tmp_path / "exported"
    line = export(None, form, path, workspace)
    assert line.startswith(f"Wrote {path}: on 200 images, no probability differs by more than")
    assert [found.name for found in tmp_path.iterdir()] == ["exported"]
    assert path.is_dir() == (form == "saved-model")
    if form == "onnx":
        images = read_split(workspace, "test")[0].reshape(-1, 8, 8)
        found = load(path).probabilities(images)
        np.testing.assert_array_equal(found, load(workspace.onnx).probabilities(images))


def test_an_export_that_computes_something_else_is_not_kept(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(
        exporting, "_by_tensorflow", lambda form, source, made, images: np.full((200, 10), 0.1)
    )
    with pytest.raises(PipelineError, match="keras export does not compute what the model does"):
        export(None, "keras", tmp_path / "exported", workspace)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_not_overwritten(workspace, tmp_path):
    (tmp_path / "exported").write_text("mine")
    with pytest.raises(PipelineError, match="something at"):
        export(None, "onnx", tmp_path / "exported", workspace)
    assert (tmp_path / "exported").read_text() == "mine"


def test_without_images_of_its_data_set_a_model_is_not_exported(workspace, tmp_path):
    other = Workspace(Path(shutil.copytree(workspace.root, tmp_path / "other")))
    other.dataset.write_text(other.dataset.read_text().replace('"digits"', '"letters"'))
    with pytest.raises(PipelineError, match="for digits, but data/processed has letters"):
        export(None, "onnx", tmp_path / "exported", other)
    other.dataset.unlink()
    with pytest.raises(PipelineError, match="for digits, but data/processed is empty: choose"):
        export(None, "onnx", tmp_path / "exported", other)
