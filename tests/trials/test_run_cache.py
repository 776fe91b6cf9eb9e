"""A trial is looked up in DVC's run cache, even if that is damaged; the stages' outputs are made up."""

import functools
import os
import time
from pathlib import Path

import pytest
from dvc.repo import Repo

from pipeline.artifacts.workspace import Workspace
from pipeline.config.compose import compose
from pipeline.trials.layout import snapshot
from pipeline.trials.run_cache import RunCache, past_outputs

REPOSITORY = Path(__file__).parents[2]
# What each stage prints in these tests, instead of doing its work.
SAYS = {
    "fetch": "mkdir -p data/raw && echo raw > data/raw/x && echo more > data/raw/y",
    "preprocess": "mkdir -p data/processed/train && cp params.yaml data/processed/train",
    "train": "mkdir -p models && cp params.yaml models/run.json && echo epoch > models/history.csv",
}
PIPELINE = """\
stages:
  fetch: {cmd: "%(fetch)s", deps: [src/pipeline/errors.py], params: [data.name], outs: [data/raw]}
  preprocess:
    {cmd: "%(preprocess)s", deps: [data/raw], params: [preprocess.seed], outs: [data/processed/train]}
  train: {cmd: "%(train)s", deps: [data/processed/train], params: [seed],
    outs: [models/history.csv, models/run.json]}
"""


@functools.cache
def composed():
    return compose(REPOSITORY / "conf")


def config_of(seed: int):
    return composed().model_copy(update={"seed": seed})


class Trials:
    """Trials of a repository whose stages are those above."""

    def __init__(self, repository: Workspace):
        repository.dvc_yaml.write_text(PIPELINE % SAYS)
        self.repository = repository

    def workspace(self, seed: int) -> Workspace:
        return snapshot(self.repository, self.repository.root / f"trial{seed}", config_of(seed))

    def run(self, seed: int) -> None:
        root, before = self.workspace(seed).root, Path.cwd()
        os.chdir(root)
        try:
            with Repo(".") as repo:
                repo.reproduce()
        finally:
            os.chdir(before)

    def find(self, seed: int):
        return RunCache(self.workspace(9)).find(config_of(seed))


@pytest.fixture
def trials(repository):
    return Trials(repository)


@pytest.fixture
def entry(trials):
    """The run cache's folder for the training of the trial with seed 1, which ran, and its only file."""
    trials.run(0)
    before = set(runs(trials))
    trials.run(1)
    [folder] = set(runs(trials)) - before
    [file] = folder.iterdir()
    return folder, file


def runs(trials):
    return (trials.repository.root / ".dvc" / "cache" / "runs").glob("*/*")


def test_earlier_runs_are_found_by_their_values_stage_by_stage(trials):
    nothing = trials.find(0)
    assert (nothing.outputs, list(nothing.missing)) == ({}, ["fetch", "preprocess", "train"])
    trials.run(0)
    whole = trials.find(0)
    assert whole.missing == {}
    models = {"models/history.csv", "models/run.json"}
    assert set(whole.outputs) == {"data/raw", "data/processed/train", *models}
    assert "seed: 0" in whole.outputs["models/run.json"].read_text()
    part = trials.find(1)
    assert set(part.outputs) == {"data/raw", "data/processed/train"}
    assert list(part.missing) == ["train"]
    # Trials in which a stage reads the same values wait for one another.
    assert nothing.missing["train"] != part.missing["train"] != trials.find(2).missing["train"]
    assert nothing.missing["preprocess"] == trials.find(1).missing.get(
        "preprocess", nothing.missing["preprocess"]
    )


def test_the_entry_that_dvc_would_restore_is_the_latest(trials, entry):
    folder, file = entry
    other = folder / ("0" * 64)
    other.write_text(file.read_text().replace("md5: ", "md5: 0"))
    os.utime(other, (1, 1))
    assert trials.find(1).missing == {}
    os.utime(other, (time.time() + 9, time.time() + 9))
    assert list(trials.find(1).missing) == ["train"]


def test_a_stage_whose_output_the_cache_has_lost_counts_as_not_run(trials, entry):
    found = trials.find(1).outputs
    found["models/run.json"].unlink()
    assert list(trials.find(1).missing) == ["train"]
    # One of several files, or one file of a folder, is enough.
    [listed] = {
        path
        for path in found["data/raw"].parents[1].rglob("*")
        if path.is_file() and path.read_bytes() == b"raw\n"
    }
    listed.unlink()
    assert list(trials.find(1).missing) == ["fetch", "preprocess", "train"]


def test_an_empty_folder_is_removed_unless_another_process_is_about_to_write_to_it(trials, entry):
    folder, file = entry
    file.unlink()
    assert list(trials.find(1).missing) == ["train"]
    assert folder.exists()
    os.utime(folder, (1, 1))
    assert list(trials.find(1).missing) == ["train"]
    assert not folder.exists()
    trials.run(1)
    assert trials.find(1).missing == {}


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[1, 2", b"cmd: x\n"])
def test_a_damaged_entry_is_removed_and_its_training_repeated(trials, entry, content, capfd):
    _, file = entry
    file.write_bytes(content)
    assert list(trials.find(1).missing) == ["train"]
    assert not file.exists()
    assert "has been removed: it will be made again" in capfd.readouterr().err
    assert trials.find(0).missing == {}
    trials.run(1)
    assert trials.find(1).missing == {}


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"seed: 7\n"])
def test_a_damaged_result_is_removed_and_its_training_repeated(trials, entry, content, capfd):
    damaged = trials.find(1).outputs["models/run.json"]
    expected = damaged.read_bytes()
    damaged.chmod(0o644)
    damaged.write_bytes(content)
    assert list(trials.find(1).missing) == ["train"]
    assert str(damaged) in capfd.readouterr().err
    trials.run(1)
    assert trials.find(1).outputs["models/run.json"].read_bytes() == expected


def test_past_outputs_are_those_of_all_entries_but_damaged_ones(trials, entry):
    folder, file = entry
    (folder / "damaged").write_text("outs: 3\n")
    cache = trials.repository.root / ".dvc" / "cache"
    found = list(past_outputs(cache))
    assert len(found) == 2 + 2 * 2  # the common stages, and two trainings
    known = trials.find(1).outputs
    digests = {path: f"{known[path].parent.name}{known[path].name}" for path in known}
    for path in ("models/history.csv", "models/run.json"):
        assert (digests[path], path, file.name[:12]) in found
