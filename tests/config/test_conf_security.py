"""A configuration can't import code, write outside of the project or reveal the environment."""

import os
import re

import pytest
from composing import CONF, refused, rewrite

from pipeline.config.compose import compose, compose_each, from_hydra
from pipeline.config.unsafe_yaml import refuse_unsafe_yaml
from pipeline.errors import PipelineError


@pytest.mark.parametrize(
    "override",
    [
        "+_target_=os.system",
        "+model._target_=os.system",
        "+data.sources.0._target_=os.system",
        "hydra.launcher._target_=os.system",
        "+hydra.callbacks.evil={_target_: os.system}",
    ],
)
def test_an_import_path_in_an_override_is_refused(override):
    assert f"{override} is refused: all options are chosen by name" in refused(CONF, override)


@pytest.mark.parametrize(
    "text",
    [
        "_target_: os.system\n",
        "hydra:\n  callbacks:\n    evil: {_target_: os.system, command: touch PWNED}\n",
        "data:\n  sources:\n    - {_target_: os.system}\n",
    ],
)
def test_an_import_path_in_conf_is_refused(conf, text):
    (conf / "experiment" / "evil.yaml").write_text("# @package _global_\n" + text)
    assert "evil.yaml, line" in (said := refused(conf))
    assert "_target_ is refused" in said


@pytest.mark.parametrize(
    "override",
    [
        "hydra.run.dir=/tmp/x",
        "hydra.run.dir=../x",
        "hydra.run.dir=a/../../x",
        "hydra.run.dir=${oc.env:HOME}/x",
        "hydra.sweep.dir=/tmp/x",
        "hydra.sweep.dir=../project-2",
        "hydra.sweep.subdir=../../../../x",
        "hydra.sweep.subdir='../../../../${hydra.job.num}'",
        "hydra.output_subdir=../../../x",
    ],
)
def test_an_output_folder_outside_of_the_project_is_refused(conf, override):
    said = refused(conf, override)
    assert override.partition("=")[0] in said
    assert "outside of the project" in said
    assert os.environ["HOME"] + "/x" not in said


@pytest.mark.parametrize(
    "override",
    ["hydra.run.dir=outputs/a/../b", "hydra.sweep.subdir='${hydra.job.num}'", "hydra.output_subdir=.hydra"],
)
def test_an_output_folder_inside_of_the_project_is_accepted(conf, override):
    assert compose(conf, [override])


def test_an_output_folder_behind_a_link_out_of_the_project_is_refused(conf, tmp_path):
    (conf.parent / "out").symlink_to(tmp_path)
    assert "outside of the project" in refused(conf, "hydra.run.dir=out/x")


SECRETS = [
    "${oc.env:SECRET}",
    "a-${ oc.env:SECRET }",
    "${oc.env:SECRET,fallback}",
    "${oc.${model.activation}:SECRET}",
    "${oc.decode:${oc.env:SECRET}}",
]


@pytest.mark.parametrize("value", SECRETS)
@pytest.mark.parametrize("file", ["config.yaml", "tracking/default.yaml"])
def test_a_value_from_the_environment_is_refused_and_not_shown(conf, monkeypatch, file, value):
    monkeypatch.setenv("SECRET", "hunter2")
    old = "name: ${data.name}-${model.name}" if file == "config.yaml" else "run_name: null"
    rewrite(conf / file, old, f"{old.partition(':')[0]}: {value}")
    said = refused(conf)
    assert "name is " in said
    assert "hunter2" not in said


@pytest.mark.parametrize("value", SECRETS)
def test_a_value_from_the_environment_in_an_override_is_refused_and_not_shown(monkeypatch, value):
    monkeypatch.setenv("SECRET", "hunter2")
    assert "hunter2" not in refused(CONF, f"tracking.run_name='{value}'")


def test_hydra_settings_cannot_bring_the_environment_into_the_config(conf, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    rewrite(conf / "config.yaml", "  run:\n", "  job:\n    name: ${oc.env:SECRET}\n  run:\n")
    rewrite(conf / "config.yaml", "${data.name}-${model.name}", "${hydra.job.name}")
    assert "hunter2" not in refused(conf)


def test_the_config_that_hydra_gives_to_the_application_is_checked_by_the_same_rules():
    from omegaconf import OmegaConf

    [composed] = compose_each(CONF, [["data=digits"]])
    values = composed.model_dump(mode="json", exclude={"modules"})
    assert from_hydra(OmegaConf.create(values)) == composed
    assert composed.trial == compose(CONF, ["data=digits"])
    for name, says in [("${oc.env:HOME}", "only references"), ("???", "name is ???"), (5, "name is 5")]:
        with pytest.raises(PipelineError, match=re.escape(says)):
            from_hydra(OmegaConf.create(values | {"name": name}))


def test_a_value_from_the_environment_is_refused_even_in_an_unused_file(conf):
    (conf / "model" / "mine.yaml").write_text("name: ${oc.env:SECRET}\n")
    with pytest.raises(PipelineError, match=re.escape("name is ${oc.env:SECRET}")):
        refuse_unsafe_yaml(conf)
