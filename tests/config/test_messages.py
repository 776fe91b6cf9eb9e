"""Messages say what is wrong with a configuration and how to correct it."""

import pytest
from composing import CONF, refused

from pipeline.config.compose import compose, compose_sweep, unresolved
from pipeline.config.overrides import first_values, parse
from pipeline.errors import PipelineError
from pipeline.sweeps.grid import grid


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("+experiment=smoke", "experiment has an option already: write experiment=smoke"),
        ("++model=cnn", "model has an option already: write model=cnn"),
        ("+seed=1", "seed exists already: write it without the +"),
        ("model.hidden_units=64", "model.hidden_units is 64: should be a list: [64]"),
        ("train.early_stopping.patience=None", "patience is 'None': write null for no value"),
        ("seed=None", "seed is 'None': should be a valid integer"),
        ("name=5", "name is 5: should be text: put quotes around it"),
        ("data.classes=[cat,1e3]", "data.classes.1 is 1000.0: should be text: put quotes around it"),
        ("model.name=foo", "model.name is 'foo': should be 'cnn' or 'mlp'"),
        ("data.sources=[x]", "data.sources.0 is 'x': should be a section"),
        ("name=", "name is '': should be up to 100 letters, digits"),
        ("train.epochs=${sed}", "train.epochs refers to ${sed}: there is no such key. Did you mean seed"),
        ("train.learning_rate=0,001", "names several values: add -m"),
        ("train.epochs", "'train.epochs' is not an override: write KEY=VALUE without spaces"),
        ("experiment", "'experiment' is not an override"),
        ("=3", "'=3' is not an override"),
        ("", "'' is not an override"),
        ("name=Ziffern-ä", "needs its own quotes, as in name='\"Ziffern-ä\"'"),
        ("name=“x”", "'name=“x”' can't be read"),
        ("model.hidden_units=[64", "each bracket"),
        ("train.epoch=1", "train.epoch: there is no such key. Did you mean train.epochs?"),
        ("trian.epochs=1", "trian.epochs: there is no such key. Did you mean train.epochs?"),
        ("train.seed=1", "Did you mean seed or preprocess.seed or sweep.seed?"),
        ("+train.foo=1", "train.foo: there is no such key. Available: train.optimizer, "),
        (
            "hydra.launcher.jobs=1",
            "hydra.launcher.jobs: there is no such key. `python -m pipeline --cfg hydra`",
        ),
        ("hydra.searchpath=[file:///none]", "/none is not a folder with options"),
        ("hydra.mode=x", "hydra.mode=x is refused: Invalid value 'x', expected one of [RUN, MULTIRUN]"),
        ("experiment=1e3", "looks like a number or a boolean needs quotes"),
        ("modules.model=x", "modules.model: conf/ has no such key; it is computed"),
    ],
)
def test_a_mistake_is_reported_with_its_remedy(override, says):
    said = refused(CONF, override)
    assert says in said
    for riddle in ("tuple", "Exception", "hydra.cc", "pattern"):
        assert riddle not in said


def test_the_heading_names_where_the_value_was_set(conf):
    assert refused(conf, "seed=-1").startswith("The command line is invalid.\n")
    path = conf / "train" / "default.yaml"
    path.write_text(path.read_text().replace("epochs: 10", "epochs: 0"))
    assert refused(conf, "seed=1").startswith("The configuration in conf/ is invalid.\n")


def test_incompatible_values_are_not_blamed_on_conf_alone(conf):
    said = refused(conf, "train.backend=jax", "train.devices=64")
    assert said.startswith(
        "The configuration in conf/ with the values of the command line is invalid.\ntrain: "
    )
    path = conf / "train" / "default.yaml"
    path.write_text(path.read_text().replace("weight_decay: 0.0", "weight_decay: 0.5"))
    assert refused(conf, "seed=1").startswith("The configuration in conf/ is invalid.\ntrain: ")


@pytest.mark.parametrize(
    "head",
    ["", "# A licence\n# @package _global_\n", "---\n# @package _global_\n", "\ufeff# @package _global_\n"],
)
def test_an_experiment_without_the_package_line_is_refused(conf, head):
    (conf / "experiment" / "mine.yaml").write_text(f"{head}seed: 1\n")
    assert "conf/experiment/mine.yaml must begin with the line `# @package _global_`" in refused(
        conf, "experiment=mine"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("defaults: cnn", "experiment/mine.yaml: `defaults` should be a list, with lines like"),
        (
            "defaults: [model: cnn]",
            "no such group. To choose an option of model in a list of defaults, write",
        ),
        (
            "defaults: [override /modle: cnn]",
            "experiment/mine.yaml: there is no group modle. Did you mean model?",
        ),
        ("defaults: [override /model: cmn]", "conf/model has no option 'cmn'. Did you mean cnn?"),
        ("defaults: [smok]", "conf/experiment has no option 'smok'. Did you mean smoke?"),
        ("train: [3]", "experiment/mine.yaml: it has a list where the configuration has a section"),
        (
            "hydra: {launcher: {n_job: 1}}",
            "experiment/mine.yaml: hydra.launcher.n_job: there is no such key.",
        ),
        ("- seed: 1", "experiment/mine.yaml should have keys with values, KEY: VALUE, and nothing else."),
        ("seed: 1\nseed: 2", "mine.yaml is not valid YAML: found duplicate key seed (line 3)."),
        (
            "train:\n\tepochs: 1",
            "mine.yaml is not valid YAML: found character that cannot start any token (line 3).",
        ),
    ],
)
def test_a_mistake_in_a_file_is_reported_with_the_file_and_the_remedy(conf, text, says):
    (conf / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
    said = refused(conf, "experiment=mine")
    assert says in said
    for riddle in ("ConfigTypeError", "full_key", "unicode string", "DictConfig"):
        assert riddle not in said


def test_an_option_in_a_yml_file_is_refused_with_the_right_ending(conf):
    (conf / "experiment" / "mine.yml").write_text("# @package _global_\nseed: 1\n")
    assert "mine.yml: the name of an option's file ends in .yaml" in refused(conf, "experiment=mine")


@pytest.mark.parametrize("name", ["1", "1e3", "true"])
def test_an_option_whose_name_reads_as_a_number_can_be_chosen_in_quotes(conf, name):
    (conf / "experiment" / f"{name}.yaml").write_text("# @package _global_\nseed: 7\n")
    assert compose(conf, [f"experiment='{name}'"]).seed == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 010", "010 reads as 8"),
        ("preprocess: {seed: 0x10}", "0x10 reads as 16"),
        ("data: {timeout: 1:30}", "1:30 reads as 90"),
        ("data: {timeout: 1:30.5}", "1:30.5 reads as 90.5"),
        ("data: {classes: [no, cat]}", "no reads as False"),
        ("train: {xla: on}", "on reads as True"),
    ],
)
def test_text_that_yaml_versions_read_differently_is_refused(conf, text, said):
    path = conf / "experiment" / "mine.yaml"
    path.write_text(f"# @package _global_\n{text}\n")
    found = refused(conf, "experiment=mine")
    assert f"mine.yaml, line 2: {said} in YAML 1.1: write that, or put quotes" in found


def test_plain_numbers_and_quoted_texts_are_accepted(conf):
    (conf / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nseed: 1_0\ndata: {timeout: 1e1, classes: ['no', \"010\"]}\ntrain: {xla: True}\n"
    )
    config = compose(conf, ["experiment=mine"])
    assert (config.seed, config.data.timeout, config.data.classes) == (10, 10.0, ("no", "010"))


def test_a_default_that_reads_as_a_boolean_is_refused(conf):
    path = conf / "config.yaml"
    path.write_text(path.read_text().replace("experiment: null", "experiment: on"))
    assert "on reads as True in YAML 1.1" in refused(conf)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["train.warmup=1.0"], "train.warmup is 1.0: .*from 0 below 1"),
        (["preprocess.validation_fraction=1"], "from 0 below 1"),
        (["data.sha256.train_images=a"], "data.sha256.train_images is 'a': should be 64 hexadecimal digits"),
        ([f"data.sha256.train_images={'a' * 65}"], "64 hexadecimal digits"),
        (["train.label_smoothing=0.1", "model.head=sigmoid"], "label_smoothing needs model.head softmax"),
        (
            ["sweep.pruner=median", "sweep.objectives=[val_accuracy,val_loss]"],
            "pruner median needs one objective",
        ),
        (["sweep.pruner=median", "sweep.objectives=[parameters]"], "pruner median needs one objective"),
        (["sweep.objectives=[val_loss,val_loss]"], "objectives has a name twice"),
    ],
)
def test_incompatible_values_and_excluded_bounds_are_refused(overrides, says):
    with pytest.raises(PipelineError, match=says):
        compose(CONF, overrides)


@pytest.mark.parametrize(
    "address", ["http://me:hunter2@host/", "postgresql://me:hunt/hunter2@host/db", "http://hunter2@host"]
)
def test_a_refused_address_is_shown_without_its_password(address):
    said = refused(CONF, f"tracking.uri='{address}'")
    assert "tracking.uri is '" in said
    assert "without a password" in said
    assert "hunter2" not in said


# --- sweeps ------------------------------------------------------------------------------------


def test_a_sweep_is_checked_with_the_first_value_of_each_list_and_without_intervals():
    overrides = parse(
        ["seed=3,4", "train.epochs=range(2,5)", "train.learning_rate=interval(0,1)", "model=glob(*)"]
    )
    assert first_values(overrides) == ["seed=3", "train.epochs=2"]
    with pytest.raises(PipelineError, match=r"seed=range\(0,0\) names no value"):
        first_values(parse(["seed=range(0,0)"]))


def test_names_of_a_sweep_are_checked_even_if_its_first_values_make_no_valid_trial():
    unresolved(CONF, ["train.weight_decay=0.1", "train.epochs=${seed}"])
    with pytest.raises(PipelineError, match=r"Did you mean train\.epochs"):
        unresolved(CONF, ["train.weight_decay=0.1", "train.epoch=3"])


def test_a_sweep_is_not_refused_for_values_that_no_trial_has():
    composed = compose_sweep(CONF, ["train.weight_decay=0.1", "train.epochs=${seed}", "sweep.n_trials=3"])
    assert (composed.sweep.n_trials, composed.name, composed.tracking.timeout) == (3, "mnist-mlp", 5.0)
    with pytest.raises(PipelineError, match=r"The command line is invalid\.\nsweep\.n_trials is 0"):
        compose_sweep(CONF, ["sweep.n_trials=0"])


def test_trials_of_a_sweep_are_validated_with_their_own_values():
    overrides = parse(
        ["experiment=mlp_best,cnn_fast", "train.weight_decay=0.01", "data=digits", "train.epochs=1"]
    )
    _, configs = grid(CONF, overrides)
    assert [config.train.optimizer for config in configs.values()] == ["adamw", "adamw"]
    overrides = parse(["train.epochs='${seed}'", "seed=1,2"])
    _, configs = grid(CONF, overrides)
    assert [config.train.epochs for config in configs.values()] == [1, 2]


@pytest.mark.parametrize("values", ["range(0, inf)", "range(0, nan, 0.1)", "range(0, 3, inf)"])
def test_a_range_without_an_end_is_refused(values):
    with pytest.raises(PipelineError, match="a range needs finite numbers"):
        parse([f"seed={values}"])
