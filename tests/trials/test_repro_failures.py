"""`dvc repro` in this process: what DVC would try without end, or report without the remedy."""

import sqlite3

import pytest
from dvc_data.hashfile.cache import Cache, HashesCache, Timeout

from pipeline.artifacts.workspace import Workspace
from pipeline.cli import training
from pipeline.errors import PipelineError, explain
from pipeline.trials.repro import _give_up_on_a_full_disk


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda cache: cache.__setitem__("picture", 1), id="link"),
        pytest.param(lambda cache: cache.set_many([("picture", "digest")], retry=True), id="digests"),
    ],
)
def test_a_database_of_dvc_on_a_full_disk_is_reported_and_not_tried_without_end(write, tmp_path, monkeypatch):
    monkeypatch.setattr(Cache, "set", Cache.set)
    monkeypatch.setattr(Cache, "transact", Cache.transact)
    _give_up_on_a_full_disk()
    with HashesCache(str(tmp_path)) as cache:
        write(cache)
        assert cache["picture"]
        tries = []

        def full(*_):
            assert len(tries) < 3, "tried again and again"
            tries.append("BEGIN")
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as patch:
            patch.setattr(HashesCache, "_sql", full)
            with pytest.raises(Timeout) as failure:
                write(cache)
    assert explain(failure.value).startswith("The disk is full or damaged:")


@pytest.mark.parametrize("name", ["dvc.lock", "params.yaml"])
def test_in_a_merge_repro_says_what_to_do_with_generated_files(name, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "repository", lambda: Workspace(tmp_path))
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / name).write_text("<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> theirs\n")
    with pytest.raises(PipelineError, match=f"{name} has conflict markers.*--ours params.yaml dvc.lock"):
        training.repro()
