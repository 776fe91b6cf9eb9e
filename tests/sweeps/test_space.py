"""What can be searched, in Hydra's own grammar, and what is refused before anything starts."""

from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pipeline.config.compose import compose_each
from pipeline.errors import PipelineError
from pipeline.sweeps.command import parse
from pipeline.sweeps.space import combination, combinations, space_of, validate_space

CONF = Path(__file__).parents[2] / "conf"
EXAMPLES = sorted(path.stem for path in (CONF / "sweep").glob("*.yaml") if path.stem != "default")


def settings_of(*settings):
    return next(compose_each(CONF, [settings])).sweep


def space(*arguments, settings=()):
    return space_of(parse(arguments, {}), settings_of(*settings))


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("interval(0.1, 1)", FloatDistribution(0.1, 1)),
        ("interval(1, 9)", FloatDistribution(1, 9)),
        ("tag(log, interval(0.001, 0.1))", FloatDistribution(0.001, 0.1, log=True)),
        ("int(interval(1, 9))", IntDistribution(1, 9)),
        ("tag(int, interval(0.5, 9))", IntDistribution(1, 9)),
        ("tag(log, int, interval(1, 100))", IntDistribution(1, 100, log=True)),
        ("range(0, 10, 3)", IntDistribution(0, 9, step=3)),
        ("range(10, 0, -5)", IntDistribution(5, 10, step=5)),
        ("range(0, 1, 0.5)", FloatDistribution(0, 0.5, step=0.5)),
        ("range(0.1, 0.5, 0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
        ("mlp,cnn", CategoricalDistribution(["mlp", "cnn"])),
        ("choice([8],[8,8],[8])", CategoricalDistribution(["[8]", "[8,8]"])),
    ],
)
def test_hydras_grammar_gives_the_distributions_of_optuna(text, distribution):
    assert space(f"some.key={text}", "seed=3") == {"some.key": distribution}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train.epochs=3"], "needs something to search"),
        (["train.learning_rate=interval(1, 0.1)"], "the first bound must be below the second"),
        (["train.epochs=interval(3, 3)"], "the first bound must be below the second"),
        (["train.learning_rate=interval(0, inf)"], "the first bound must be below the second"),
        (["train.epochs=tag(int, interval(1.2, 1.8))"], "the first bound must be below the second"),
        (["train.learning_rate=tag(log, interval(0, 1))"], "needs bounds above 0"),
        (["train.learning_rate=tag(lg, interval(0.1, 1))"], "there is no tag lg, only log and int"),
        (["train.epochs=range(5, 1)"], "names no value"),
        (["train.epochs=tag(log, range(1, 5))"], "can't be searched"),
        (["model=glob(*)"], "can't be searched"),
        (["sweep.n_trials=3,4"], "a setting of the search itself"),
        (["train.learning_rate=interval(0.1, 1)", "sweep.sampler=grid"], "sampler=grid needs values"),
        (["seed=range(0, 1000000)", "sweep.sampler=grid"], "1,000,000 combinations"),
        (["train.epochs=interval(1, 9)"], r"Whole numbers are int\(interval\(1, 9\)\)"),
        (["train.learning_rate=interval(0.1, 100)"], "train.learning_rate is 100.0: should be"),
        (["model=mlp,cnnn"], "Did you mean cnn"),
        (["preprocess.validation_fraction=0.0", "seed=0,1"], "there are no validation images"),
        (["preprocess.validation_fraction=0.0,0.1"], "there are no validation images"),
        (["train.epochs=2,9", "sweep.pruner=hyperband"], "trainings of equally many epochs"),
    ],
)
def test_an_unsupported_search_space_is_refused_in_a_sentence(arguments, said):
    overrides = parse(arguments, {})
    base = [part.input_line for part in overrides if not part.is_sweep_override()]
    settings = settings_of(*base)
    with pytest.raises(PipelineError, match=said):
        validate_space(CONF, base, space_of(overrides, settings), settings)


@pytest.mark.parametrize(
    ("pruner", "arguments", "trained"),
    [("median", ["train.epochs=2,9"], [2, 9]), ("hyperband", ["train.epochs=9", "seed=0,1"], [9, 9])],
)
def test_only_hyperband_needs_trainings_of_equally_many_epochs(pruner, arguments, trained):
    settings = settings_of(f"sweep.pruner={pruner}")
    overrides = parse(arguments, {})
    base = [part.input_line for part in overrides if not part.is_sweep_override()]
    found = validate_space(CONF, base, space_of(overrides, settings), settings)
    assert [config.train.epochs for config in found] == trained


def test_without_validation_images_the_size_can_still_be_searched():
    base = ["preprocess.validation_fraction=0.0", "sweep.objectives=[parameters]"]
    settings = settings_of(*base)
    validate_space(CONF, base, space_of(parse(["model=mlp,cnn"], {}), settings), settings)


def test_each_combination_of_a_grid_occurs_once_in_an_order_set_by_the_seed():
    grid = space("a=range(0.1, 0.6, 0.2)", "b=x,y", "c=range(0, 2)", settings=["sweep.sampler=grid"])
    assert combinations(grid) == 12
    order = [combination(grid, number, seed=0) for number in range(12)]
    assert sorted((each["a"], each["b"], each["c"]) for each in order) == [
        (a, b, c) for a in (0.1, 0.3, 0.5) for b in "xy" for c in (0, 1)
    ]
    assert order != [combination(grid, number, seed=1) for number in range(12)]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_in_conf_can_be_searched(name):
    base = [f"sweep={name}", "experiment=smoke"]
    settings = settings_of(*base)
    overrides = parse(base, settings.params)
    validate_space(CONF, base, space_of(overrides, settings), settings)
