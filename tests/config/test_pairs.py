"""Any options of two groups can be combined."""

import itertools

import pytest
import yaml
from composing import CONF

from pipeline.config.compose import compose, compose_each
from pipeline.config.section import ModelSection
from pipeline.errors import PipelineError

FILLED_IN = [
    "data.name=mine",
    "data.classes=[cat,dog]",
    "data.sources=[{kind: idx, path: mine}]",
    "data.reader.image_size=[8,8]",
]


def options() -> list[tuple[str, str]]:
    """Return all options but the defaults: a pair with a default is the other option alone."""
    defaults = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    chosen = {
        (group, option) for entry in defaults if isinstance(entry, dict) for group, option in entry.items()
    }
    found = {(path.parent.name, path.stem) for path in CONF.glob("*/*.yaml")}
    return sorted(found - chosen - {("local", "default")})


def rows_that_cover(pairs: list[tuple[tuple[str, str], ...]]) -> list[dict[str, str]]:
    """Return combinations of options of several groups that together contain every pair."""
    rows, left = [], set(pairs)
    while left:
        row: dict[str, str] = {}
        for pair in sorted(left):
            if all(row.get(group, option) == option for group, option in pair):
                row |= dict(pair)
        rows.append(row)
        left -= set(itertools.combinations(sorted(row.items()), 2))
    return rows


def test_all_pairs_of_options_of_all_groups_compose():
    pairs = [pair for pair in itertools.combinations(options(), 2) if pair[0][0] != pair[1][0]]
    assert {"experiment", "model", "data", "sweep"} == {group for pair in pairs for group, _ in pair}
    names = {name for row in pairs for group, name in row if group == "model"}
    alone = compose_each(CONF, [[f"model={name}"] for name in names])
    models = {name: composed.model for name, composed in zip(names, alone, strict=True)}
    rows = rows_that_cover(pairs)
    overrides = [
        [
            *(f"{group}={option}" for group, option in row.items()),
            *(FILLED_IN if row.get("data") == "idx" else []),
        ]
        for row in rows
    ]
    for row, composed in zip(rows, compose_each(CONF, overrides), strict=True):
        assert "model" not in row or composed.model == models[row["model"]].model_copy(
            update={"head": composed.model.head}
        )


def test_an_experiment_sets_only_keys_that_all_models_have():
    for path in CONF.glob("experiment/*.yaml"):
        assert set(yaml.safe_load(path.read_text()).get("model", {})) <= set(ModelSection.model_fields) - {
            "name"
        }


def test_values_for_another_model_than_the_chosen_one_are_refused_with_the_remedy():
    with pytest.raises(PipelineError, match=r"into a file of conf/model that the experiment chooses"):
        compose(CONF, ["experiment=smoke", "model=cnn", "+model.hidden_units=[3]"])
