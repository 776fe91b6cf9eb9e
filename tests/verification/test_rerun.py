"""Files that only a new training can give back: what is put back, and what is said."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest

from pipeline.artifacts.workspace import Workspace, sha256
from pipeline.errors import PipelineError
from pipeline.verification import rerun
from pipeline.verification.problems import Problem
from pipeline.verification.rerun import rebuild


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """What a rebuilt run consists of."""
    clone = Workspace(tmp_path)
    clone.model.parent.mkdir()
    clone.model.write_bytes(b"weights")
    monkeypatch.setattr(rerun, "origin_in_mlflow", lambda *_: SimpleNamespace(label="letters-111111"))
    monkeypatch.setattr(rerun, "rebuilt", lambda origin, workspace: nullcontext(clone))
    return clone


def lost(name, digest):
    return Problem("mlflow", "", name=name, digest=digest)


def test_only_files_with_the_recorded_bytes_are_put_back(clone):
    same, other = lost("model.keras", sha256(clone.model)), lost("model.onnx", 64 * "0")
    done = []
    lines = rebuild("1", [same, other], None, clone, lambda problem, path: done.append((problem, path)))
    assert done == [(same, clone.model)]
    assert lines == [
        "model.keras of letters-111111: trained again, the same bytes.",
        "model.onnx of letters-111111: trained again, other bytes, which are not kept.",
    ]


def test_a_run_that_cannot_be_rebuilt_is_one_line(clone, monkeypatch):
    @contextmanager
    def failing(origin, workspace):
        raise PipelineError("its commit is not here")
        yield

    monkeypatch.setattr(rerun, "rebuilt", failing)
    assert rebuild("1", [lost("a", "0"), lost("b", "1")], None, clone, lambda *_: None) == [
        "a, b: no copy was found, and the run can't be trained again: its commit is not here"
    ]
