import json
import re
import sys

import numpy as np
import pytest
from clones import clone_of, executed, smoke_clone_of

STAGES = ["compose", "fetch", "preprocess", "train", "evaluate"]


def skipped(output: str) -> bool:
    return all(f"Stage '{stage}' didn't change, skipping" in output for stage in STAGES)


@pytest.mark.slow
def test_a_fresh_clone_trains_mnist_and_then_runs_only_what_an_edit_affects(fresh):
    # params.yaml is in git, so compose runs only if conf/ or its code changed since then.
    assert [stage for stage in executed(fresh.repro()) if stage != "compose"] == STAGES[1:]
    assert fresh.run("dvc", "status").strip() == "Data and pipelines are up to date."
    metrics = json.loads(fresh.workspace.metrics.read_text())
    assert metrics["train_accuracy"] >= 0.994
    assert metrics["test_accuracy"] >= 0.97

    # The metrics match the saved files, and MLflow shows the same.
    scores = np.load(fresh.workspace.probabilities)
    labels = np.load(fresh.workspace.processed / "test" / "labels.npy")
    assert scores.shape == (10_000, 10)
    nll = -np.log(scores[np.arange(10_000), labels].astype(np.float64)).mean()
    assert nll == pytest.approx(metrics["test_nll"], rel=1e-6)
    assert (scores.argmax(axis=1) == labels).mean() == metrics["test_accuracy"]
    [run] = fresh.mlflow_runs()
    assert run.data.metrics["test_nll"] == metrics["test_nll"]
    assert run.data.metrics["test_accuracy"] == metrics["test_accuracy"]
    assert run.data.tags["pipeline.weights_sha256"] == metrics["weights_sha256"]

    before = fresh.digests()
    assert skipped(fresh.repro())
    fresh.edit("conf/train/default.yaml", "epochs: 10", "epochs: 1")
    edited = fresh.repro()
    assert executed(edited) == ["compose", "train", "evaluate"]
    assert fresh.digests() != before
    fresh.edit("conf/train/default.yaml", "epochs: 1", "epochs: 10")
    restored = fresh.repro()
    assert executed(restored) == ["compose"]
    assert "Stage 'train' is cached" in restored
    assert fresh.digests() == before
    assert json.loads(fresh.workspace.metrics.read_text()) == metrics
    assert fresh.run("dvc", "status").strip() == "Data and pipelines are up to date."
    assert len(fresh.mlflow_runs()) == 2


def test_the_experiment_smoke_reaches_the_accuracy_stated_in_its_file(reproduced):
    text = (reproduced.root / "conf" / "experiment" / "smoke.yaml").read_text()
    promised = re.search(r"Expect (\d+) % on the test images, (\d+) % in validation", text).groups()
    metrics = json.loads(reproduced.workspace.metrics.read_text())
    assert promised == tuple(f"{100 * metrics[name]:.0f}" for name in ("test_accuracy", "val_accuracy"))


@pytest.mark.slow
def test_git_and_dvc_checkouts_and_repro_in_any_order_retrain_nothing(smoke):
    first = smoke.digests()
    smoke.edit("conf/train/default.yaml", "learning_rate: 0.001", "learning_rate: 0.01")
    smoke.repro()
    smoke.git("commit", "--quiet", "--all", "--message=Faster")
    second = smoke.digests()

    smoke.git("checkout", "--quiet", "HEAD~1")
    smoke.run("dvc", "checkout")
    assert set(executed(smoke.repro())) <= {"compose"}
    assert (smoke.digests(), smoke.changes()) == (first, "")
    smoke.git("checkout", "--quiet", "main")
    assert set(executed(smoke.repro())) <= {"compose"}
    assert (smoke.digests(), smoke.changes()) == (second, "")


def test_an_edit_of_params_by_hand_is_refused_and_the_remedy_works(smoke):
    smoke.edit("params.yaml", "epochs: 5", "epochs: 6")
    edited = smoke.workspace.params.read_text()
    # DVC writes the params of an experiment before any stage runs.
    experiment = smoke.run("dvc", "exp", "run", "-S", "train.learning_rate=0.01", code=None)
    refusal = smoke.repro(code=None)
    assert "ERROR: params.yaml was edited by hand" in experiment
    assert "error: params.yaml was edited by hand" in refusal
    assert "Traceback" not in refusal
    for remedy in (
        "put the value into conf/",
        "python -m pipeline KEY=VALUE",
        "dvc exp run -S KEY=VALUE",
        "delete params.yaml",
    ):
        assert remedy in refusal
    assert smoke.workspace.params.read_text() == edited

    smoke.workspace.params.unlink()
    smoke.repro()
    assert "epochs: 5" in smoke.workspace.params.read_text()
    assert smoke.changes() == ""


def test_a_clone_that_has_the_cache_restores_all_and_rebuilds_the_run(reproduced, tmp_path):
    clone = clone_of(reproduced, tmp_path / "second")
    cache = reproduced.root / ".dvc" / "cache"
    clone.run("dvc", "cache", "dir", "--local", str(cache))
    # No network: the proxy does not exist.
    nowhere = "http://127.0.0.1:9"
    offline = {"http_proxy": nowhere, "https_proxy": nowhere, "no_proxy": ""}
    output = clone.repro(**offline)
    assert not {"fetch", "preprocess", "train", "evaluate"} & set(executed(output))
    assert clone.digests() == reproduced.digests()
    assert not (clone.root / "mlflow.db").exists()

    clone.run("pipeline", "sync")
    [rebuilt], [original] = clone.mlflow_runs(), reproduced.mlflow_runs()
    assert rebuilt.info.run_name == original.info.run_name
    assert (rebuilt.info.status, rebuilt.data.metrics) == ("FINISHED", original.data.metrics)

    clone.edit("conf/experiment/smoke.yaml", "epochs: 5", "epochs: 1")
    assert executed(clone.repro("train", **offline)) == ["compose", "train"]


def test_stages_run_in_the_environment_of_the_clone_even_if_it_is_not_activated(template, tmp_path):
    clone = smoke_clone_of(template, tmp_path / "clone")
    (clone.root / ".venv").symlink_to(sys.prefix)
    (clone.root / "params.yaml").unlink()
    clone.run(".venv/bin/dvc", "repro", "compose", PATH="/usr/bin:/bin")
    assert "name: smoke" in clone.workspace.params.read_text()


@pytest.mark.slow
def test_pipeline_repro_does_the_same_as_dvc_repro_without_its_hints(template, tmp_path):
    clone = smoke_clone_of(template, tmp_path / "clone")
    output = clone.run("pipeline", "repro")
    assert executed(output) == STAGES
    [run] = clone.mlflow_runs()
    assert output.splitlines()[-1].endswith(f": {run.info.run_id}")
    again = clone.run("pipeline", "repro")
    assert skipped(again)
    for advice in ("git add", "autostage", "dvc push"):
        assert advice not in output + again
    clone.edit("conf/data/digits.yaml", "name: digits", "name: 3")
    assert "ERROR: failed to reproduce 'compose'" in clone.run("pipeline", "repro", code=None)


def test_make_alone_lists_the_targets(fresh):
    lines = fresh.run("make").splitlines()
    assert {line.split()[1] for line in lines} >= {"setup", "repro", "ui", "test", "lint"}
    assert not (fresh.root / ".venv").exists()


@pytest.mark.slow
def test_a_training_with_other_weights_than_in_the_commit_is_reported(smoke):
    told = "The stage train made other bytes than the last commit from the same code, data and values"
    assert told not in smoke.run("pipeline", "repro")
    digest = smoke.digests()["models/model.keras"]
    text = smoke.workspace.dvc_lock.read_text()
    # As if the commit came from another machine, where the training gave other weights.
    smoke.workspace.dvc_lock.write_text(text.replace(digest, "f" * 32))
    smoke.git("commit", "--quiet", "--all", "--message=Elsewhere")
    assert told in smoke.run("pipeline", "repro")
    assert smoke.digests()["models/model.keras"] == digest
