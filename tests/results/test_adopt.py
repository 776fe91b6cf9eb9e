import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from made_up import sweep, trial

from pipeline.artifacts.workspace import Workspace
from pipeline.config.compose import compose
from pipeline.config.params import dump
from pipeline.errors import PipelineError
from pipeline.results.adopt import adopt
from pipeline.results.download import Training
from pipeline.trials.outcome import key_of

STAGE = "{filters: 4, kernel_size: 3, convolutions: 1, stride: 1, pool: true}"
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def repository(tmp_path):
    """A repository with the conf/ of this one and an empty cache."""
    shutil.copytree(REPOSITORY / "conf", tmp_path / "conf", ignore=shutil.ignore_patterns("local"))
    shutil.copy(REPOSITORY / "dvc.yaml", tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    return Workspace(tmp_path)


def swept(repository, *overrides, **changes):
    """A sweep in the repository with one trial of these overrides, called smoke-1; its configuration."""
    config = compose(repository.root / "conf", overrides)
    differs = dict(override.split("=", 1) for override in overrides)
    done = replace(trial(**differs), overrides=overrides, key=key_of(config))
    report = sweep([done], **changes)
    report.write(repository.sweeps / report.id)
    return config


def experiment(repository, name="mine"):
    return (repository.root / "conf" / "experiment" / f"{name}.yaml").read_text()


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=smoke", "train.learning_rate=1e-5", "seed=3"],
        ["seed=1"],
        ["data=digits", "model=cnn", "model.dropout=0.1", f"model.stages=[{STAGE}, {STAGE}]"],
        ["experiment=smoke", "model.hidden_units=[64,32]", "train.early_stopping={patience: 3}"],
        ["experiment=smoke", "name='1, = it'", "++train.epochs=7", "tracking.run_name='yes'"],
        ["data=fashion_mnist", "model=cnn", "train.xla=null", "data.sha256=null"],
        ["model=cnn", "experiment=cnn_best", "train.epochs=2"],
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_an_experiment_composes_to_the_trials_configuration(repository, overrides):
    if "model.stages=[]" in overrides:
        overrides[-1] = "model.stages=[{filters: 4, kernel_size: 3, convolutions: 1, stride: 1, pool: true}]"
    config = swept(repository, *overrides)
    said = adopt("smoke-1", repository, "mine")
    assert dump(compose(repository.root / "conf", ["experiment=mine"])) == dump(config)
    assert "conf/experiment/mine.yaml" in said[0]
    assert "`experiment: mine` in conf/config.yaml and run `dvc repro`" in said[1]
    assert said[2].endswith("python -m pipeline experiment=mine")


def test_an_adopted_experiment_is_short_and_names_its_origin_and_its_base(repository):
    swept(repository, "experiment=cnn_fast", "data=digits", "model.dropout=0.1", "seed=0")
    adopt("smoke-1", repository, "mine")
    text = experiment(repository)
    head = text.partition("defaults:")[0]
    assert head.startswith("# @package _global_\n")
    assert "#   python -m pipeline experiment=mine\n" in head
    assert "Trial 1 of 1 in smoke-sweep-3f2a, smoke-1" in head
    assert "val_accuracy 50.00 %" in head
    assert "python -m pipeline -m experiment=smoke train.learning_rate=0.01,0.003" in head
    assert yaml.safe_load(text) == {
        "defaults": ["cnn_fast", {"override /data": "digits"}, "_self_"],
        # A requested value is written even if it is the default.
        "seed": 0,
        "model": {"dropout": 0.1},
    }


def test_the_experiment_in_config_yaml_is_a_base_too(repository):
    file = repository.root / "conf" / "config.yaml"
    file.write_text(file.read_text().replace("experiment: null", "experiment: smoke"))
    config = swept(repository, "seed=4")
    adopt("smoke-1", repository, "mine")
    file.write_text(file.read_text().replace("experiment: smoke", "experiment: mine"))
    assert dump(compose(repository.root / "conf")) == dump(config)
    assert yaml.safe_load(experiment(repository))["defaults"] == ["smoke", "_self_"]


def test_what_an_option_of_the_sweep_changed_is_part_of_it(repository):
    option = repository.root / "conf" / "sweep" / "short.yaml"
    option.write_text("# @package _global_\ndefaults: [default@sweep, _self_]\ntrain: {epochs: 2}\n")
    config = swept(repository, "sweep=short", "seed=1")
    assert config.train.epochs == 2
    adopt("smoke-1", repository, "mine")
    assert dump(compose(repository.root / "conf", ["experiment=mine"])) == dump(config)


@pytest.mark.parametrize("overrides", [[], ["data=letters"]], ids=["of config.yaml", "chosen"])
def test_the_pins_of_own_data_are_not_copied_into_the_experiment(repository, overrides):
    # Like a file of `pipeline add-data`, it leaves out defaults of the source, such as its `labels`.
    text = (repository.root / "conf" / "data" / "digits.yaml").read_text()
    source = "  - kind: folder\n    path: letters\n    images: 40\n    test_below: [0.2, 0.3]\n"
    before, rest = text.partition("sources:")[0], text.partition("reader:")[2]
    before = before.replace("name: digits", "name: letters")
    letters = repository.root / "conf" / "data" / "letters.yaml"
    letters.write_text(f"{before}sources:\n{source}    unreadable: skip\nreader:{rest}")
    file = repository.root / "conf" / "config.yaml"
    if not overrides:
        file.write_text(file.read_text().replace("data: mnist", "data: letters"))
    swept(repository, *overrides, "seed=1")
    adopt("smoke-1", repository, "mine")
    assert yaml.safe_load(experiment(repository)).keys() == {"defaults", "seed"}
    # The experiment uses images that are added later, too.
    letters.write_text(letters.read_text().replace("images: 40", "images: 50"))
    composed = compose(repository.root / "conf", ["experiment=mine"])
    assert composed.data == compose(repository.root / "conf", ["data=letters"]).data


def test_settings_of_hydra_and_of_the_sweep_are_not_part_of_it(repository):
    config = swept(repository, "experiment=smoke", "hydra/launcher=basic", "hydra.verbose=true", "seed=2")
    adopt("smoke-1", repository, "mine")
    assert "hydra" not in experiment(repository).partition("defaults:")[2]
    assert dump(compose(repository.root / "conf", ["experiment=mine"])) == dump(config)


def test_a_file_is_only_overwritten_with_force(repository):
    swept(repository, "experiment=smoke", "seed=1")
    place = repository.root / "conf" / "experiment" / "mine.yaml"
    place.write_text("# precious\n")
    with pytest.raises(PipelineError, match=r"mine\.yaml exists: choose another --name"):
        adopt("smoke-1", repository, "mine")
    assert place.read_text() == "# precious\n"
    adopt("smoke-1", repository, "mine", force=True)
    assert "seed: 1" in place.read_text()


def test_without_a_name_it_is_called_after_the_configuration_and_the_run(repository):
    swept(repository, "experiment=smoke", "name='Übung, my net'")
    assert "conf/experiment/bung-my-net-0000.yaml" in adopt("smoke-1", repository)[0]


@pytest.mark.parametrize("name", ["on", "010", "null", "1_000", "1e5", "inf", "übung", "-a"])
def test_a_name_that_yaml_or_hydra_cannot_read_as_text_is_refused(repository, name):
    swept(repository, "experiment=smoke", "seed=1")
    with pytest.raises(PipelineError, match=f"'{name}' is not a name for an experiment"):
        adopt("smoke-1", repository, name)


@pytest.mark.parametrize("run", ["smoke-1", "smoke", f"{1:032x}", f"{1:032x}"[:8]])
def test_a_run_is_found_by_its_name_its_id_and_their_beginnings(repository, run):
    swept(repository, "experiment=smoke", "seed=1")
    adopt(run, repository, "mine")
    assert "seed: 1" in experiment(repository)


def test_a_run_in_two_sweeps_counts_once(repository):
    swept(repository, "experiment=smoke", "seed=1", id="a" * 16)
    swept(repository, "experiment=smoke", "seed=1", id="b" * 16, name="later", start=9**15)
    adopt("smoke-1", repository, "mine")
    assert "in later, smoke-1" in experiment(repository)


def untouched(repository):
    return sorted(path.name for path in (repository.root / "conf" / "experiment").iterdir())


def test_a_name_of_no_trial_or_of_several_is_refused_in_a_sentence(repository):
    before = untouched(repository)
    with pytest.raises(PipelineError, match="MLflow has no run 'x'; the latest are: none"):
        adopt("x", repository)
    failed = trial({}, "failed", seed="2")
    report = sweep([trial(seed="0"), trial(seed="1"), failed])
    report.write(repository.sweeps / report.id)
    with pytest.raises(PipelineError, match="'smoke' may be any of 2 runs"):
        adopt("smoke", repository)
    with pytest.raises(PipelineError, match="MLflow has no run 'smoke-3'"):
        adopt("smoke-3", repository)
    assert untouched(repository) == before


def test_an_experiment_that_would_differ_from_the_trial_is_refused(repository):
    conf, before = repository.root / "conf", untouched(repository)
    swept(repository, "experiment=smoke", "seed=1")
    with pytest.raises(PipelineError, match=r"based on the experiment smoke: choose another --name"):
        adopt("smoke-1", repository, "smoke", force=True)
    with pytest.raises(PipelineError, match=r"'\.\./x' is not a name"):
        adopt("smoke-1", repository, "../x")
    (conf / "local").mkdir()
    (conf / "local" / "default.yaml").write_text("# @package _global_\nseed: 5\n")
    with pytest.raises(PipelineError, match="seed 5 in place of 1, since conf"):
        adopt("smoke-1", repository)
    shutil.rmtree(conf / "local")
    file = conf / "train" / "default.yaml"
    file.write_text(file.read_text().replace("batch_size: 32", "batch_size: 64"))
    with pytest.raises(PipelineError, match="conf/ or the code has changed since the sweep smoke-sweep-3f2a"):
        adopt("smoke-1", repository)
    assert untouched(repository) == before


def as_mlflow_has_it(monkeypatch, name, config, run_id="f" * 32):
    training = Training(name, run_id, config.model_dump(mode="json"), {})
    monkeypatch.setattr("pipeline.results.adopt.find_training", lambda *_: training)


@pytest.mark.parametrize(
    "overrides",
    [["seed=1"], ["data=digits", "model=cnn_fine", "train.epochs=2"], ["data=digits", "train.backend=jax"]],
)
def test_a_run_outside_any_sweep_is_adopted_with_the_closest_options(repository, monkeypatch, overrides):
    """Even if conf/ names no experiment: `name` refers to data.name, which is missing in data/idx.yaml."""
    config = compose(repository.root / "conf", overrides)
    as_mlflow_has_it(monkeypatch, "a run", config)
    adopt("a run", repository, "mine")
    assert compose(repository.root / "conf", ["experiment=mine"]) == config
    chosen = [override for override in overrides if override.startswith(("data", "model"))]
    assert all(f"override /{option.replace('=', ': ')}\n" in experiment(repository) for option in chosen)


def test_a_trial_is_adopted_by_the_name_that_mlflow_shows(repository, monkeypatch):
    config = swept(repository, "experiment=smoke", "seed=1")
    as_mlflow_has_it(monkeypatch, "seed=1-0000", config, f"{1:032x}")
    adopt("seed=1", repository, "mine")
    assert "Trial 1 of 1" in experiment(repository)
