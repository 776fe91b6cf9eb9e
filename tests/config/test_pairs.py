"""Options of groups compose with each other, whoever chose the other."""

import itertools
from pathlib import Path

import pytest
import yaml

from pipeline.config.compose import compose, compose_each
from pipeline.config.section import ModelSection
from pipeline.errors import PipelineError

CONF = Path(__file__).parents[2] / "conf"
FILLED_IN = ["data.name=mine", "data.classes=[cat,dog]", "data.sources=[{kind: idx, path: mine}]"]


def options() -> list[tuple[str, str]]:
    """All options of all groups but the default ones: with these a pair is the other one alone."""
    defaults = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    chosen = {
        (group, option) for entry in defaults if isinstance(entry, dict) for group, option in entry.items()
    }
    found = {(path.parent.name, path.stem) for path in CONF.glob("*/*.yaml")}
    return sorted(found - chosen - {("local", "default")})


def test_all_pairs_of_options_of_all_groups_compose():
    pairs = [pair for pair in itertools.combinations(options(), 2) if pair[0][0] != pair[1][0]]
    assert {"experiment", "model", "data", "sweep"} == {group for pair in pairs for group, _ in pair}
    overrides = [
        [*(f"{group}={option}" for group, option in pair), *(FILLED_IN if ("data", "idx") in pair else [])]
        for pair in pairs
    ]
    models = {
        option: composed.model
        for option in {option for pair in pairs for group, option in pair if group == "model"}
        for composed in compose_each(CONF, [[f"model={option}"]])
    }
    for pair, composed in zip(pairs, compose_each(CONF, overrides), strict=True):
        for option in [option for group, option in pair if group == "model"]:
            assert composed.model == models[option].model_copy(update={"head": composed.model.head})
    assert len(pairs) > 80


def test_an_experiment_sets_of_a_model_what_all_models_have():
    for path in CONF.glob("experiment/*.yaml"):
        assert set(yaml.safe_load(path.read_text()).get("model", {})) <= set(ModelSection.model_fields) - {
            "name"
        }


def test_values_for_another_model_than_the_chosen_one_are_refused_with_the_way_to_write_them():
    with pytest.raises(PipelineError, match=r"belongs in a file of conf/model that the experiment chooses"):
        compose(CONF, ["experiment=smoke", "model=cnn", "+model.hidden_units=[3]"])
