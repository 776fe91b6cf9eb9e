"""A run is identified by the inputs of its training; its occasions are listed with it."""

import dataclasses
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import (
    client,
    config,
    curve,
    dataset,
    epochs,
    evaluate,
    files,
    free_port,
    kept,
    lay_out,
    one_run,
    runs,
    train,
)

from pipeline.artifacts.processed import write_dataset
from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError
from pipeline.tracking import session as tracking
from pipeline.tracking.identity import evaluation_of, identify
from pipeline.tracking.lineage import Code, code_of, read_code, write_code
from pipeline.tracking.occasion import occasions_of

NOWHERE = f"http://127.0.0.1:{free_port()}"


def number(workspace, settings=None, code=None):
    return identify(settings or config(), workspace, code or {})["id"]


@pytest.fixture
def laid_out(tmp_path):
    return lay_out(Workspace(tmp_path / "work"))


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "loop.py"
    path.write_text("x = 1\n")
    return path


def test_the_id_is_the_same_wherever_and_whenever_the_inputs_are_the_same(laid_out, tmp_path, module):
    other = lay_out(Workspace(tmp_path / "other"))
    (tmp_path / "copy.py").write_text(module.read_text())
    first = identify(config(), laid_out, {"src/loop.py": module})
    assert identify(config(), other, {"src/loop.py": tmp_path / "copy.py"}) == first
    assert len(first["id"]) == 32
    assert first["name"] == f"digits-mlp-{first['id'][:6]}"


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"train": {"epochs": 6}}, {"model": {"dropout": 0.5}}, {"modules": {"model": "0" * 64}}],
    ids=str,
)
def test_values_that_train_reads_are_part_of_the_id(laid_out, changes):
    assert number(laid_out, config(**changes)) != number(laid_out)


@pytest.mark.parametrize(
    "changes",
    [{"name": "x"}, {"evaluate": {"calibration_bins": 9}}, {"tracking": {"run_name": "x"}}],
    ids=str,
)
def test_values_that_train_does_not_read_are_not_part_of_the_id(laid_out, changes):
    assert number(laid_out, config(**changes)) == number(laid_out)


def test_training_data_and_code_are_part_of_the_id_and_test_images_are_not(laid_out, module):
    plain, with_code = number(laid_out), number(laid_out, code={"src/loop.py": module})
    module.write_text("x = 2\n")
    assert len({plain, with_code, number(laid_out, code={"src/loop.py": module})}) == 3
    write_dataset(laid_out, dataset(test="d"))
    assert number(laid_out) == plain
    other = dataset()
    digests = {**other.sha256, "train": {"images": "f" * 64, "labels": "f" * 64}}
    write_dataset(laid_out, dataclasses.replace(other, sha256=digests))
    assert number(laid_out) != plain


def test_evaluations_are_identified_by_their_settings_and_their_test_images():
    values = config().model_dump(mode="json")
    others = config(evaluate={"calibration_bins": 9}).model_dump(mode="json")
    found = [
        evaluation_of(values, dataset()),
        evaluation_of(others, dataset()),
        evaluation_of(values, dataset("d")),
    ]
    assert len({evaluation["id"] for evaluation in found}) == 3
    assert evaluation_of(values, dataset()) == found[0]


# --- occasions ---------------------------------------------------------------------------------


def test_run_json_is_the_same_for_every_execution(workspace):
    train(config(), workspace)
    first = workspace.run.read_bytes()
    workspace.run.unlink()
    train(config(), workspace)
    assert workspace.run.read_bytes() == first
    assert {*json.loads(first)} == {"id", "name", "config", "data", "code", "result"}


def test_a_repeated_training_is_one_run_that_lists_both_occasions(workspace):
    for _ in range(2):
        train(config(), workspace)
        evaluate(config(), workspace)
    run = one_run(workspace)
    assert run.info.status == "FINISHED"
    assert curve(workspace, run, "train_loss") == [(epoch.epoch, epoch.train_loss) for epoch in epochs()]
    occasions = occasions_of(workspace, run.data.tags["pipeline.id"])
    assert len(occasions) == 2
    assert {key for key in run.data.tags if key.startswith("pipeline.occasion.")} == {
        f"pipeline.occasion.{occasion.id}" for occasion in occasions
    }
    shown = {f"occasions/{occasion.id}.json" for occasion in occasions}
    assert shown <= set(files(workspace, run))
    assert kept(workspace) == []


def test_two_clones_with_one_server_that_train_the_same_make_one_run(workspace, tmp_path, server, model):
    settings = config(seed=41, tracking={"uri": server.uri})
    other = lay_out(Workspace(tmp_path / "other"), model)
    for clone in (workspace, other):
        train(settings, clone)
        evaluate(settings, clone)
    [run] = [run for run in runs(server.uri) if run.data.params.get("seed") == "41"]
    assert sum(key.startswith("pipeline.occasion.") for key in run.data.tags) == 2
    assert len(run.outputs.model_outputs) == 1


def test_different_weights_are_reported_at_once_and_never_overwrite_the_first(workspace, capfd):
    train(config(), workspace)
    evaluate(config(), workspace)
    before = one_run(workspace)
    capfd.readouterr()
    workspace.model.write_bytes(b"as another processor would have it")
    train(config(), workspace)
    said = capfd.readouterr().err
    assert "gave different weights from the first occasion of smoke-" in said
    assert "nothing that is recorded differs" in said
    evaluate(config(), workspace, accuracy=0.1)
    [line] = list(tracking.sync(config().tracking, workspace))[-1:]
    assert "in MLflow" in line
    assert "have different weights" in line
    run = one_run(workspace)
    assert run.data.metrics == before.data.metrics
    assert run.data.tags["pipeline.weights_sha256"] == before.data.tags["pipeline.weights_sha256"]
    assert sum(key.startswith("pipeline.occasion.") for key in run.data.tags) == 2
    assert kept(workspace) == []


def test_a_model_of_another_run_is_never_shown_with_the_run(workspace):
    train(config(tracking={"uri": NOWHERE}), workspace)
    workspace.model.write_bytes(b"somebody else's")
    with pytest.raises(PipelineError, match=r"is not the model of the run digits-mlp-.* --force"):
        evaluate(config(), workspace)
    shutil.rmtree(workspace.scratch / "runs")
    with pytest.raises(PipelineError, match="is not the model of the run"):
        list(tracking.sync(config().tracking, workspace))
    assert not [run for run in runs(workspace) if run.outputs and run.outputs.model_outputs]


def test_a_store_that_lost_the_run_gets_it_again_with_its_occasions(workspace):
    train(config(), workspace)
    before = one_run(workspace)
    client(workspace).delete_tag(before.info.run_id, "pipeline.id")
    list(tracking.sync(config().tracking, workspace))
    [again] = [run for run in runs(workspace) if "pipeline.id" in run.data.tags]
    assert again.info.run_id != before.info.run_id
    assert again.data.tags["git.commit"] == before.data.tags["git.commit"]
    assert any(key.startswith("pipeline.occasion.") for key in again.data.tags)


def test_two_processes_that_rebuild_a_run_at_once_make_one_run(workspace):
    train(config(), workspace)
    from mlflow.entities import ViewType

    before = one_run(workspace)
    client(workspace).delete_tag(before.info.run_id, "pipeline.id")
    tracked = config().tracking
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: list(tracking.sync(tracked, workspace)), range(2)))
    found = client(workspace).search_runs([before.info.experiment_id], run_view_type=ViewType.ALL)
    [again] = [run for run in found if run.info.run_id != before.info.run_id]
    assert curve(workspace, again) == curve(workspace, before)
    assert len(again.outputs.model_outputs) == 1


# --- the code that ran -------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "repository"
    (root / "src").mkdir(parents=True)
    (root / "src" / "a.py").write_text("x = 1\n\n\n")
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=first")
    return Workspace(root)


def git(root, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", "-C", root, *identity, *arguments], capture_output=True, check=True).stdout


def test_the_recorded_patch_turns_the_commit_into_the_code_that_ran(repository, tmp_path):
    git(repository.root, "config", "color.ui", "always")
    git(repository.root, "config", "diff.external", "false")
    git(repository.root, "config", "diff.noprefix", "true")
    (repository.root / "src" / "a.py").write_bytes(b"x = 2 \xff\n\n\n\n")
    (repository.root / "src" / "new ü.py").write_text("y = 1\n")
    (repository.root / "src" / "picture.png").write_bytes(bytes(range(256)))
    write_code(tmp_path / "code.json", code_of(repository))
    code = read_code(tmp_path / "code.json")
    assert code.dirty == "true"
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", repository.root, clone)
    (tmp_path / "patch").write_bytes(code.patch.encode("utf-8", "surrogateescape"))
    git(clone, "checkout", "--quiet", code.commit)
    git(clone, "apply", tmp_path / "patch")
    for path in (repository.root / "src").iterdir():
        assert (clone / "src" / path.name).read_bytes() == path.read_bytes()


def test_a_clean_tree_is_clean_whatever_repository_the_environment_names(repository, monkeypatch):
    commit = git(repository.root, "rev-parse", "HEAD").decode().strip()
    monkeypatch.setenv("GIT_DIR", str(Path(__file__).parents[2] / ".git"))
    assert code_of(repository) == Code(commit, code_of(repository).branch, "false", "")


@pytest.mark.parametrize("what", ["no repository", "no commit"])
def test_what_git_cannot_tell_is_unknown_and_not_false(tmp_path, what):
    if what == "no commit":
        git(tmp_path, "init", "--quiet")
    else:
        os.environ.pop("GIT_DIR", None)
    assert code_of(Workspace(tmp_path)) == Code("unknown", "unknown", "unknown", "")
    shutil.rmtree(tmp_path / ".git", ignore_errors=True)


def test_a_clone_that_belongs_to_another_user_is_reported(tmp_path, monkeypatch, capfd):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    # Git has this variable for its own tests; the pipeline removes git's variables from the environment.
    (tmp_path / "bin").mkdir()
    other_owner = tmp_path / "bin" / "git"
    other_owner.write_text(f'#!/bin/sh\nGIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec {shutil.which("git")} "$@"\n')
    other_owner.chmod(0o755)
    monkeypatch.setenv("PATH", f"{other_owner.parent}:{os.environ['PATH']}")
    assert code_of(Workspace(tmp_path)) == Code()
    assert code_of(Workspace(tmp_path)) == Code()
    error = capfd.readouterr().err
    assert error.count("warning: ") == 1
    assert f"git config --global --add safe.directory {tmp_path}" in error
