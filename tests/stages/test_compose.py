import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pipeline.artifacts.workspace import Workspace
from pipeline.config.compose import compose
from pipeline.config.params import dump, read_params
from pipeline.errors import PipelineError
from pipeline.stages.compose import run

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def workspace(tmp_path):
    shutil.copytree(CONF, tmp_path / "conf", ignore=shutil.ignore_patterns("local"))
    return Workspace(tmp_path)


def edit(workspace, old, new, file="conf/train/default.yaml"):
    path = workspace.root / file
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def dvc_composes(workspace, *overrides):
    """Write params.yaml as `dvc exp run -S` does: resolved, by OmegaConf, without a header."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(str(workspace.root / "conf"), version_base=None):
        composed = hydra_compose("config", list(overrides))
    OmegaConf.resolve(composed)
    workspace.params.write_text(OmegaConf.to_yaml(composed), encoding="utf-8")


def test_params_are_what_conf_composes_to(workspace, capsys):
    run(workspace)
    assert workspace.params.read_text() == dump(compose(CONF))
    assert capsys.readouterr().out == "Composed params.yaml: mnist-mlp, seed 0.\n"


def test_an_edit_of_conf_is_followed(workspace):
    run(workspace)
    edit(workspace, "epochs: 10", "epochs: 3")
    run(workspace)
    assert read_params(workspace.params).train.epochs == 3


def test_an_edit_of_params_by_hand_is_refused_and_kept(workspace):
    run(workspace)
    edit(workspace, "epochs: 10", "epochs: 3", file="params.yaml")
    edited = workspace.params.read_text()
    with pytest.raises(PipelineError, match="edited by hand"):
        run(workspace)
    assert workspace.params.read_text() == edited


@pytest.mark.parametrize(
    ("old", "new"),
    [("epochs: 10", "epochs: 0"), ("epochs: 10", "epochs: ["), ("epochs: 10", "epochs: ???")],
)
def test_a_broken_conf_leaves_the_old_params_in_place(workspace, old, new):
    run(workspace)
    before = workspace.params.read_text()
    edit(workspace, old, new)
    with pytest.raises(PipelineError):
        run(workspace)
    assert workspace.params.read_text() == before


def test_under_a_dvc_experiment_its_overrides_are_kept(workspace):
    run(workspace)
    dvc_composes(workspace, "train.learning_rate=1e-5", "train.epochs=3", "data=digits")
    assert "learning_rate: 1.0e-05" in workspace.params.read_text()
    run(workspace, "my-experiment")
    found = read_params(workspace.params)
    assert found == compose(CONF, ["train.learning_rate=1e-5", "train.epochs=3", "data=digits"])
    assert workspace.params.read_text() == dump(found)


def test_floats_as_other_writers_spell_them_are_floats(workspace):
    dvc_composes(workspace, "train.learning_rate=1e-5")
    edit(workspace, "1.0e-05", "1e-05", file="params.yaml")
    run(workspace, "my-experiment")
    assert read_params(workspace.params).train.learning_rate == 1e-5


def test_after_an_experiment_a_plain_run_goes_back_to_conf(workspace):
    dvc_composes(workspace, "train.epochs=3")
    run(workspace, "my-experiment")
    run(workspace)
    assert workspace.params.read_text() == dump(compose(CONF))


@pytest.mark.parametrize("override", ["train.epochs=0", "seed=???", "+train.lr=1"])
def test_refused_overrides_of_an_experiment_do_not_stay_in_the_way(workspace, override):
    dvc_composes(workspace, override)
    with pytest.raises(PipelineError):
        run(workspace, "my-experiment")
    # Left in place, the file would be taken for an edit by hand.
    run(workspace)
    assert workspace.params.read_text() == dump(compose(CONF))


def test_a_secret_that_dvc_resolved_does_not_stay_in_params(workspace, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    edit(workspace, "run_name: null", "run_name: ${oc.env:SECRET}", file="conf/tracking/default.yaml")
    dvc_composes(workspace)
    assert "hunter2" in workspace.params.read_text()
    with pytest.raises(PipelineError, match="run_name is") as error:
        run(workspace, "my-experiment")
    assert "hunter2" not in str(error.value)
    for path in workspace.root.rglob("*"):
        assert path.is_dir() or "hunter2" not in path.read_text()


@pytest.mark.parametrize("content", ["", "- a\n", "a: [\n"])
def test_an_experiment_without_values_is_refused(workspace, content):
    workspace.params.write_text(content)
    with pytest.raises(PipelineError):
        run(workspace, "my-experiment")
