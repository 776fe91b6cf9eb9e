"""Trainings of one clone are reused in another through a DVC remote."""

import json
import shutil

import pytest
from clones import clone_of, executed


@pytest.mark.slow
def test_a_sweep_that_another_clone_ran_is_not_run_again(smoke, tmp_path):
    smoke.pipeline("-m", "train.epochs=1", "seed=0,1")
    smoke.run("dvc", "remote", "add", "--default", "shared", str(tmp_path / "remote"))
    smoke.git("commit", "--quiet", "--all", "--message=A remote")
    assert "Sent " in smoke.run("pipeline", "push")
    assert "Sent 0 files of the cache" in smoke.run("pipeline", "push")

    other = clone_of(smoke, tmp_path / "other")
    assert "Fetched " in other.run("pipeline", "pull")
    assert "2 trials: 2 known, 0 to run." in other.pipeline("-m", "train.epochs=1", "seed=0,1")
    assert executed(other.repro()) == []
    assert other.digests() == smoke.digests()
    # The lineage of the model comes with it.
    other.run("pipeline", "sync")
    name = json.loads(smoke.workspace.run.read_text())["name"]
    [theirs], [ours] = (
        [run for run in clone.mlflow_runs() if run.data.tags.get("pipeline.name") == name]
        for clone in (smoke, other)
    )
    assert ours.data.tags["git.commit"] == theirs.data.tags["git.commit"] != "unknown"

    # A missing file of a folder is restored.
    shutil.rmtree(max((other.root / ".dvc/cache/files/md5").iterdir()))
    assert "Fetched 0 files" not in other.run("pipeline", "pull")
    assert "2 known" in other.pipeline("-m", "train.epochs=1", "seed=0,1")


def test_a_problem_with_the_remote_is_reported_in_a_sentence(smoke, tmp_path):
    for verb in ("push", "pull"):
        told = smoke.run("pipeline", verb, code=1)
        assert told.startswith("error: ")
        assert "no remote" in told
        assert "Traceback" not in told
    (tmp_path / "file").write_text("no folder")
    smoke.run("dvc", "remote", "add", "--default", "shared", str(tmp_path / "file"))
    told = smoke.run("pipeline", "push", code=1)
    assert told.startswith("error: ")
    assert "Traceback" not in told
