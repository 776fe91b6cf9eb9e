"""What conf/ contains, and which values a configuration may have."""

import re
import shutil

import pytest
from composing import CONF, refused, rewrite
from pydantic import ValidationError

from pipeline.config.compose import compose
from pipeline.config.schema import Config
from pipeline.config.section import leaves

OPTIONS = sorted(path.relative_to(CONF) for path in CONF.glob("*/*.yaml") if path.parent.name != "local")


@pytest.mark.parametrize("path", OPTIONS, ids=str)
def test_every_option_composes(path):
    override = f"{path.parent}={path.stem}"
    if override == "data=idx":
        assert "data.name is ???: give it a value" in refused(CONF, override)
    else:
        assert compose(CONF, [override])


@pytest.mark.parametrize("path", sorted(CONF.glob("experiment/*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_opens_with_the_command_that_runs_it(path):
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert head[0] == "# @package _global_"
    assert f"#   python -m pipeline experiment={path.stem}" in head


def test_every_value_has_a_comment_where_it_is_set():
    """On its line or above it; names, digests and list items are explained by the comment of their parent."""
    speaks_for_itself = re.compile(
        r"(name|sha256|.*_images|.*_labels|learning_rate|dataset|package|version|url)$"
    )
    for path in [
        CONF / "config.yaml",
        *CONF.glob("*/default.yaml"),
        CONF / "model/mlp.yaml",
        CONF / "data/mnist.yaml",
    ]:
        lines = path.read_text().splitlines()
        in_hydra = False
        for number, line in enumerate(lines):
            in_hydra = line.startswith("hydra:") or (in_hydra and line.startswith(" "))
            key = re.match(r"\s*(?:- )?([\w/ ]+): +[^\s#]", line)
            if key and not in_hydra and not key[1].startswith("override hydra"):
                above = number and lines[number - 1].lstrip().startswith("#")
                assert "# " in line or above or speaks_for_itself.match(key[1]), f"{path}: {line}"


def test_the_defaults_are_the_baseline_except_for_the_head():
    baseline, default = (dict(leaves(compose(CONF, o).model_dump())) for o in (["experiment=baseline"], []))
    different = {key for key in default if baseline[key] != default[key]}
    assert different == {"name", "model.head"}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.learning_rate=nan", "train.learning_rate is nan: .* \\(above 0 up to 10\\)"),
        ("train.learning_rate=1e400", "train.learning_rate is inf: .* \\(above 0 up to 10\\)"),
        ("train.learning_rate=-1", "train.learning_rate is -1: .* \\(above 0 up to 10\\)"),
        ("train.learning_rate=0.1x", "train.learning_rate is '0.1x': .* \\(above 0 up to 10\\)"),
        ("train.learning_rate='\"0.1\"'", "train.learning_rate is .* \\(above 0 up to 10\\)"),
        ("seed=-1", "seed is -1: .* \\(from 0 below 4,294,967,296\\)"),
        ("seed=18446744073709551616", "seed is 18446744073709551616: .* \\(from 0 below 4,294,967,296\\)"),
        ("seed=true", "seed is True: should be a valid integer"),
        ("train.epochs=0", "train.epochs is 0: .* \\(from 1 up to 100,000\\)"),
        ("train.epochs=1.5", "train.epochs is 1.5: .* \\(from 1 up to 100,000\\)"),
        ("train.xla=1", "train.xla is 1: should be a valid boolean"),
        ("train.weight_decay=0.1", "weight_decay needs optimizer adamw"),
        ("model.activation=rleu", "model.activation is 'rleu': should be 'relu', 'gelu'"),
        ("data.classes=[cat,cat]", "data: classes has a name twice"),
        ("data.sources=[]", "data.sources is \\[\\]: should have at least 1 item"),
        ("data.sources=[{kind: ftp}]", "data.sources.0"),
    ],
)
def test_a_value_out_of_range_is_refused_with_key_and_range(override, says):
    assert re.search(says, refused(CONF, override))


def test_early_stopping_without_validation_images_is_refused():
    overrides = ["preprocess.validation_fraction=0.0", "train.early_stopping.patience=3"]
    assert "train.early_stopping.patience needs validation images" in refused(CONF, *overrides)
    assert compose(CONF, overrides[:1])


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.lerning_rate=1", "Did you mean train.learning_rate"),
        ("train.lr=1", "Did you mean train.learning_rate"),
        ("+train.lr=1", "train.lr: there is no such key. Did you mean train.learning_rate"),
        (
            "model.stages=[]",
            "model.stages: the chosen model has no such key, but another one in conf/model does",
        ),
        (
            "+model.stages=[]",
            "model.stages: the chosen model has no such key, but another one in conf/model does",
        ),
        ("+model.hiden_units=[3]", "model.hiden_units: there is no such key. Did you mean model.hidden_u"),
        ("train.epoch=2", "train.epoch: there is no such key. Did you mean train.epochs"),
        ("+data.sources.0.dateset=x", "data.sources.0.dateset: there is no such key"),
        ("~train.epoch", "train.epoch: there is no such key. Did you mean train.epochs"),
        ("foo=1", "Available: name, seed, data, preprocess, model, train, evaluate, tracking"),
        ("+foo=1", "foo: there is no such key. Available: name, seed,"),
        ("~train.epochs", "train.epochs: the key is missing"),
        ("data=mist", "conf/data has no option 'mist'. Did you mean mnist?"),
        (
            "model=transformer",
            "conf/model has no option 'transformer'. Available: cnn, cnn_deep, cnn_fine, cnn_large, "
            "cnn_photo, mlp",
        ),
        ("experiment=smok", "Did you mean smoke?"),
        ("model=null", "model=null is refused"),
        ("seed=???", "seed is ???: give it a value"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_ones(override, says):
    assert says in refused(CONF, override)


def test_a_missing_group_and_a_missing_conf_are_refused(conf):
    rewrite(conf / "config.yaml", "  - model: mlp # which network\n", "")
    # The default name refers to the name of the model.
    assert "model" in refused(conf)
    rewrite(conf / "config.yaml", "name: ${data.name}-${model.name}", "name: x")
    assert "model: the key is missing" in refused(conf)
    shutil.rmtree(conf)
    assert "There is no" in refused(conf)


def test_a_key_that_was_deleted_from_conf_is_reported(conf):
    rewrite(conf / "config.yaml", "seed: 0", "# seed: 0")
    assert "seed: the key is missing" in refused(conf)
    assert "seed: conf/config.yaml lacks the key" in refused(conf, "seed=1")


def test_sections_are_frozen():
    config = compose(CONF)
    for change in (
        lambda: setattr(config, "seed", 1),
        lambda: setattr(config.train.early_stopping, "patience", 1),
    ):
        with pytest.raises(ValidationError, match="frozen"):
            change()
    assert isinstance(config.data.classes, tuple)
    assert isinstance(config, Config)
