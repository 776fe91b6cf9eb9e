import shutil
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from pipeline.config.compose import compose, compose_each
from pipeline.errors import PipelineError
from pipeline.results.report import Report, Trial
from pipeline.sweeps.command import parse
from pipeline.sweeps.grid import grid
from pipeline.sweeps.sweep import plan_of

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def conf(tmp_path):
    shutil.copytree(CONF, tmp_path / "conf", ignore=shutil.ignore_patterns("local"))
    return tmp_path / "conf"


def plan(conf, *arguments, params=None):
    return grid(conf, parse(arguments, params or {}))[0]


def configs(conf, *arguments, params=None):
    return list(grid(conf, parse(arguments, params or {}))[1].values())


def test_every_combination_is_a_trial_in_the_order_of_hydra(conf):
    trials = plan(conf, "data=digits", "model=mlp,cnn", "seed=range(0,2)", "train.epochs=3")
    assert [trial.number for trial in trials] == [1, 2, 3, 4]
    assert [trial.differs for trial in trials] == [
        {"model": model, "seed": seed} for model in ("mlp", "cnn") for seed in ("0", "1")
    ]
    planned = configs(conf, "data=digits", "model=mlp,cnn", "seed=range(0,2)", "train.epochs=3")
    assert [(config.model.name, config.seed, config.train.epochs) for config in planned] == [
        ("mlp", 0, 3),
        ("mlp", 1, 3),
        ("cnn", 0, 3),
        ("cnn", 1, 3),
    ]
    assert trials[3].overrides == ("data=digits", "model=cnn", "seed=1", "train.epochs=3")


def test_a_configuration_is_planned_once_however_it_is_written(conf):
    trials = plan(conf, "train.learning_rate=0.01,1e-2,0.010,0.02")
    assert [trial.differs["train.learning_rate"] for trial in trials] == ["0.01", "0.02"]
    assert [trial.number for trial in trials] == [1, 2]


def test_a_glob_expands_to_the_options_of_a_group(conf):
    with initialize_config_dir(str(conf), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
    _, planned = grid(conf, parse(["data=digits", "model=glob(m*, exclude=*_*)", "seed=0,1"], {}, loader))
    assert [(config.model.name, config.seed) for config in planned.values()] == [("mlp", 0), ("mlp", 1)]
    with pytest.raises(PipelineError, match=r"model=glob\(x\*\) names no value"):
        grid(conf, parse(["model=glob(x*)"], {}, loader))


def test_the_command_line_overrides_the_sweep_in_conf(conf):
    planned = configs(
        conf, "seed=7", params={"seed": "0,1", "train.learning_rate": "0.1,0.2", "train.epochs": 4}
    )
    assert [(c.seed, c.train.learning_rate, c.train.epochs) for c in planned] == [
        (7, 0.1, 4),
        (7, 0.2, 4),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train.learning_rate=0.1,nan"], "train.learning_rate is nan"),
        (["seed=0,-1"], "seed is -1"),
        (["model=mlp,cnnn"], "Did you mean cnn"),
        (["train.learning_rate=interval(0.1,1)"], "hydra/sweeper=optuna"),
        (["train.learnin_rate=1,2"], "Did you mean train.learning_rate"),
        (["name=a,b"], "sweeps over name, which does not change the training"),
        (["seed=1", "tracking.run_name=a,b"], r"sweeps over tracking\.run_name"),
    ],
)
def test_an_invalid_trial_refuses_the_whole_sweep(conf, arguments, said):
    with pytest.raises(PipelineError, match=said):
        plan(conf, *arguments)


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.learning_rate=0.5", "seed=3"],
        ["model=cnn", "model.dropout=0.5"],
        ["experiment=smoke", "model.hidden_units=[8,8]"],
        ["data=digits", "name=other", "train.augment.shift=1"],
        [],
    ],
)
def test_composing_many_at_once_equals_composing_each(overrides):
    neighbours = [["seed=9"], overrides, ["model=cnn"], overrides]
    found = [composed.trial for composed in compose_each(CONF, neighbours)]
    assert found == [compose(CONF, each) for each in neighbours]


def test_the_plan_counts_what_will_run_and_pruned_trials_do_not():
    def said(*states):
        trials = tuple(Trial(number, state=state) for number, state in enumerate(states, start=1))
        return plan_of(
            Report("3f2a", "sweep", (), "optuna", "joblib", (), {}, {}, 0, trials=trials), workers=2
        )

    assert said("known", "waiting", "waiting", "waiting") == (
        "4 trials: 1 known, 3 to run, 2 at a time (hydra/launcher=joblib)."
    )
    assert said("known", "pruned", "waiting") == (
        "3 trials: 1 known, 1 pruned, 1 to run, 1 at a time (hydra/launcher=joblib)."
    )
    assert said("known", "pruned") == "2 trials: 1 known, 1 pruned, 0 to run."
