"""Which outputs of dvc.lock are in DVC's cache."""

import pytest
import yaml

from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError
from pipeline.verification.cache import Cache


def test_outputs_that_git_has_instead_of_the_cache_are_not_looked_for(tmp_path):
    workspace = Workspace(tmp_path)
    out = {"md5": 32 * "0"}
    listed = {"compose": ["params.yaml"], "train": ["model", "scores.json", "curve.csv", "kept"]}
    stages = {
        "compose": {"cmd": "true", "outs": [{"params.yaml": {"cache": False}}]},
        "train": {
            "cmd": "true",
            "outs": ["model", {"kept": {"cache": True}}],
            "metrics": [{"scores.json": {"cache": False}}],
            "plots": [{"curve.csv": {"cache": False}}],
        },
    }
    workspace.dvc_yaml.write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    locked = {stage: {"outs": [{"path": path, **out} for path in paths]} for stage, paths in listed.items()}
    workspace.dvc_lock.write_text(yaml.safe_dump({"stages": locked | {"nothing": {"cmd": "true"}}}))
    cache = Cache(workspace)
    assert [(found.path, found.stage) for found in cache.locked()] == [
        ("model", "train"),
        ("kept", "train"),
    ]
    assert cache.stages() == ["compose", "train"]
    workspace.dvc_lock.write_text("stages: [")
    with pytest.raises(PipelineError):
        cache.locked()
