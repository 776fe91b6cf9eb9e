"""What another clone trained is sent to a DVC remote, whatever else is in DVC's cache."""

import hashlib
import json

import yaml

from pipeline.artifacts.workspace import Workspace, object_in
from pipeline.trials.remote import pull, push


def put(cache, content: bytes, suffix=""):
    """Put an object into DVC's cache and return its name."""
    name = hashlib.md5(content).hexdigest() + suffix
    path = object_in(cache, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return name


def clone(folder):
    """Make a workspace with a DVC configuration whose default remote is next to it."""
    (folder / ".dvc" / "tmp").mkdir(parents=True)
    config = "[core]\n    no_scm = true\n    remote = shared\n['remote \"shared\"']\n    url = ../../remote\n"
    (folder / ".dvc" / "config").write_text(config)
    return Workspace(folder)


def test_outputs_of_past_results_are_shared_and_damaged_entries_passed_over(tmp_path):
    ours, theirs = clone(tmp_path / "ours"), clone(tmp_path / "theirs")
    cache = ours.dvc_cache()
    inner = put(cache, b"inner")
    folder = put(cache, json.dumps([{"relpath": "a", "md5": inner}]).encode(), ".dir")
    outs = [{"path": "models", "md5": folder}, {"path": "x", "md5": put(cache, b"x")}]
    entries = cache / "runs" / "ab" / ("ab" * 32)
    entries.mkdir(parents=True)
    (entries / ("1" * 64)).write_text(yaml.safe_dump({"cmd": "a", "outs": outs}))
    (entries / ("2" * 64)).write_text("")
    assert push(ours).startswith("Sent 3 files of the cache;")
    assert pull(theirs).startswith("Fetched 3 files of the cache;")
    assert object_in(theirs.dvc_cache(), inner).read_bytes() == b"inner"
