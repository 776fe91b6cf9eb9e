"""The command line of a sweep: what its trials are composed from."""

import shutil
from pathlib import Path

import pytest
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.types import HydraContext, RunMode

from pipeline.artifacts.workspace import Workspace
from pipeline.sweeps.command import Command

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_trials_are_composed_from_the_copy_of_conf_even_if_conf_changes(tmp_path, prefix):
    conf, copied = tmp_path / "repository" / "conf", tmp_path / "copy" / "conf"
    shutil.copytree(CONF, conf, ignore=shutil.ignore_patterns("local"))
    shutil.copytree(conf, copied)
    loader = ConfigLoaderImpl(create_config_search_path(f"{prefix}{conf}"))
    overall = loader.load_configuration("config", ["experiment=smoke"], RunMode.MULTIRUN)
    command = Command((), HydraContext(loader, Callbacks()), overall, Workspace(conf.parent), (), None)
    # As if an editor had saved an incomplete file, or git had switched branches.
    (conf / "config.yaml").write_text("seed: [")
    shutil.rmtree(conf / "experiment")
    config = command.context_with(copied).config_loader.load_sweep_config(
        overall, ["experiment=smoke", "seed=2"]
    )
    assert (config.seed, config.data.name) == (2, "digits")


@pytest.mark.parametrize(
    ("device", "asked", "workers"),
    [("gpu", [], 2), ("gpu", ["hydra.launcher.n_jobs=5"], 5), ("cpu", [], 1)],
)
def test_two_trials_share_a_gpu_unless_another_number_is_requested(device, asked, workers, monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    loader = ConfigLoaderImpl(create_config_search_path(str(CONF)))
    overall = loader.load_configuration("config", asked, RunMode.MULTIRUN)
    command = Command((), HydraContext(loader, Callbacks()), overall, Workspace(CONF.parent), (), None)
    assert command.workers(device) == workers


def test_a_folder_named_after_the_number_of_a_trial_is_part_of_the_command_line():
    arguments = ["hydra.sweep.dir=kept", "hydra.sweep.subdir=${hydra.job.num}"]
    loader = ConfigLoaderImpl(create_config_search_path(str(CONF)))
    overall = loader.load_configuration("config", arguments, RunMode.MULTIRUN)
    command = Command(
        ("seed=1,2",), HydraContext(loader, Callbacks()), overall, Workspace(CONF.parent), (), None
    )
    assert command.command_line == (*arguments, "seed=1,2")
