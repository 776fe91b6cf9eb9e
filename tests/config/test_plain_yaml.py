"""YAML with a date or a number that does not exist, or that is not UTF-8, is refused in a sentence."""

import pytest
import yaml
from composing import CONF

from pipeline.artifacts.workspace import Workspace
from pipeline.config.params import experiment_of, read_generated, refuse_edited, unedited_values
from pipeline.config.plain_yaml import load_yaml
from pipeline.config.unsafe_yaml import refuse_unsafe_yaml
from pipeline.data.adding.options import AddOptions, settings_of
from pipeline.errors import PipelineError
from pipeline.results import adopt
from pipeline.results.download import values_in
from pipeline.trials.layout import read_stages

NO_SUCH_VALUES = ["2024-13-45", "0b_", "0x_"]


@pytest.mark.parametrize("text", NO_SUCH_VALUES)
def test_what_can_not_be_read_is_an_error_of_yaml(text):
    with pytest.raises(yaml.YAMLError):
        load_yaml(text)


@pytest.mark.parametrize("content", [f"name: {text}".encode() for text in NO_SUCH_VALUES] + [b"name: \xff"])
def test_a_damaged_params_yaml_counts_as_edited(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_bytes(b"# content: 0123\n" + content)
    for read in (unedited_values, refuse_edited):
        with pytest.raises(PipelineError, match=r"delete params.yaml and run `dvc repro`"):
            read(path)
    assert experiment_of(path) is None
    with pytest.raises(PipelineError, match=r"`git checkout params.yaml` restores it"):
        read_generated(path)


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "[]",
        "",
        "{a: 1}",
        "{a: {deps: 1}}",
        "{a: {outs: [1]}}",
        "{a: {outs: [{path: x}]}}",
        "{a: {outs: [{path: x, md5: 1}]}}",
        "{a: {params: 1}}",
    ],
)
def test_a_dvc_lock_that_dvc_did_not_write_is_refused(tmp_path, text):
    path = tmp_path / "dvc.lock"
    for whole in (
        "",
        "stages: {}\n",
        "stages: {a: {cmd: x, deps: [{path: x, md5: y}], params: {p: {k: 1}}}}\n",
    ):
        path.write_text(f"schema: '2.0'\n{whole}")
        assert read_generated(path)["schema"] == "2.0"
    path.write_text(f"schema: '2.0'\nstages: {text}\n")
    with pytest.raises(PipelineError, match=r"`git checkout dvc.lock` restores it"):
        read_generated(path)


@pytest.mark.parametrize("text", ["0b_", "0x_", "0x" + 5000 * "f"])
def test_a_number_that_does_not_exist_is_refused_in_conf(tmp_path, text):
    (tmp_path / "config.yaml").write_text(f"seed: {text}\n")
    with pytest.raises(PipelineError, match=r"line 1: .* reads as no number in YAML 1.1"):
        refuse_unsafe_yaml(tmp_path)


def test_a_date_that_does_not_exist_is_refused_wherever_it_is_read(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").write_text("stages: 2024-13-45\n")
    with pytest.raises(PipelineError, match=r"dvc.yaml is not valid YAML: month must be in 1..12"):
        read_stages(Workspace(tmp_path))
    with pytest.raises(PipelineError, match="holds no configuration that can be read"):
        values_in(tmp_path / "dvc.yaml", "letters-111111")
    options = AddOptions("x", None, None, None, None, None, ("label_column=2024-13-45",), False, False)
    with pytest.raises(PipelineError, match="2024-13-45 is not valid YAML"):
        settings_of(options, {"sources": [{"kind": "csv"}]})
    monkeypatch.setattr(adopt, "_of_sweep", lambda *_: adopt._Source("r", "1", None, (), "", ()))
    with pytest.raises(PipelineError, match="'2024-13-45' is not a name for an experiment"):
        adopt.adopt("r", Workspace(CONF.parent), "2024-13-45")
