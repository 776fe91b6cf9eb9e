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


def test_params_with_personal_settings_are_announced(workspace, capsys):
    (workspace.root / "conf" / "local").mkdir()
    (workspace.root / "conf" / "local" / "default.yaml").write_text("# @package _global_\nseed: 5\n")
    run(workspace)
    assert read_params(workspace.params).seed == 5
    said = capsys.readouterr().out
    assert "It includes your conf/local/default.yaml, which git ignores: before you commit" in said


def test_an_edit_of_conf_changes_params(workspace):
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
    assert workspace.params.read_text() == dump(found, "my-experiment")


def test_floats_in_the_notation_of_other_programs_are_floats(workspace):
    dvc_composes(workspace, "train.learning_rate=1e-5")
    edit(workspace, "1.0e-05", "1e-05", file="params.yaml")
    run(workspace, "my-experiment")
    assert read_params(workspace.params).train.learning_rate == 1e-5


def test_values_of_an_experiment_that_conf_lacks_are_not_lost_silently(workspace):
    dvc_composes(workspace, "train.epochs=3")
    run(workspace, "my-experiment")
    before = workspace.params.read_text()
    edit(workspace, "seed: 0 #", "seed: 1 #", file="conf/config.yaml")
    with pytest.raises(PipelineError, match="the DVC experiment my-experiment") as error:
        run(workspace)
    for said in ("seed 0 (conf/: 1)", "train.epochs 3 (conf/: 10)", "into conf/", "delete params.yaml"):
        assert said in str(error.value)
    assert workspace.params.read_text() == before
    workspace.params.unlink()
    run(workspace)
    assert read_params(workspace.params) == compose(CONF, ["seed=1"])


def test_after_an_experiment_whose_values_are_in_conf_params_are_composed_again(workspace):
    dvc_composes(workspace, "train.epochs=3")
    run(workspace, "my-experiment")
    edit(workspace, "epochs: 10", "epochs: 3")
    run(workspace)
    assert workspace.params.read_text() == dump(compose(CONF, ["train.epochs=3"]))


def test_params_of_an_experiment_without_own_values_are_those_of_conf(workspace):
    dvc_composes(workspace)
    run(workspace, "my-experiment")
    assert workspace.params.read_text() == dump(compose(CONF))


@pytest.mark.parametrize("override", ["train.epochs=0", "seed=???", "+train.lr=1"])
def test_refused_overrides_of_an_experiment_leave_params_as_conf_has_them(workspace, override):
    dvc_composes(workspace, override)
    with pytest.raises(PipelineError):
        run(workspace, "my-experiment")
    assert workspace.params.read_text() == dump(compose(CONF))


@pytest.mark.parametrize(
    "override",
    ["name='${oc.env:SECRET}'", "name='a-${oc.env:SECRET}'", "data.classes=[a,'${oc.env:SECRET}']"],
)
def test_a_secret_in_an_override_of_an_experiment_is_refused_and_not_shown(workspace, monkeypatch, override):
    monkeypatch.setenv("SECRET", "hunter")
    dvc_composes(workspace, override)
    assert "hunter" in workspace.params.read_text()
    with pytest.raises(PipelineError, match="the environment variable SECRET") as error:
        run(workspace, "my-experiment")
    assert "hunter" not in str(error.value)
    assert "hunter" not in workspace.params.read_text()


def test_a_value_in_conf_is_no_secret_although_the_environment_contains_it(workspace, monkeypatch):
    monkeypatch.setenv("MY_DATA", "digits")
    monkeypatch.setenv("MY_EXPERIMENT", "image-classifier")
    dvc_composes(workspace, "data=digits")
    run(workspace, "my-experiment")
    assert read_params(workspace.params).name == "digits-mlp"


@pytest.mark.parametrize("name", ["SECRET", "TERM"])
def test_a_secret_that_dvc_resolved_does_not_stay_in_params(workspace, monkeypatch, name):
    monkeypatch.setenv(name, "hunter")
    edit(workspace, "run_name: null", f"run_name: ${{oc.env:{name}}}", file="conf/tracking/default.yaml")
    dvc_composes(workspace)
    assert "hunter" in workspace.params.read_text()
    with pytest.raises(PipelineError, match="run_name is") as error:
        run(workspace, "my-experiment")
    assert "hunter" not in str(error.value)
    for path in workspace.root.rglob("*"):
        assert path.is_dir() or "hunter" not in path.read_text()


def test_params_that_an_experiment_did_not_leave_are_composed_from_conf(workspace):
    with pytest.raises(PipelineError, match="can't be read"):
        run(workspace, "my-experiment")
    assert workspace.params.read_text() == dump(compose(CONF))


@pytest.mark.parametrize("content", ["", "- a\n", "a: [\n"])
def test_an_experiment_without_values_is_refused(workspace, content):
    workspace.params.write_text(content)
    with pytest.raises(PipelineError):
        run(workspace, "my-experiment")
