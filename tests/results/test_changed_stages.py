"""Which stages of dvc.lock changed, and by what."""

import pytest

from pipeline.artifacts.workspace import Workspace
from pipeline.results.change import changed_stages, of_workspace

TRAIN = {
    "cmd": "train",
    "deps": [{"path": "loop.py", "md5": "1"}, {"path": "data", "md5": "1"}],
    "params": {"params.yaml": {"seed": 0, "train": {"epochs": 5}}},
    "outs": [{"path": "model", "md5": "1"}],
}


def sides(tmp_path, before, after):
    """Two states whose dvc.lock has these stages."""
    found = []
    for name, stages in (("before", before), ("after", after)):
        workspace = Workspace(tmp_path / name)
        workspace.root.mkdir()
        workspace.dvc_lock.write_text(repr({"schema": "2.0", "stages": stages}))
        found.append(of_workspace(workspace))
    return found


DEPS = TRAIN["deps"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "unchanged"),
        ({"deps": DEPS[::-1]}, "unchanged"),
        ({"deps": [DEPS[0], {"path": "data", "md5": "2"}]}, "data"),
        ({"deps": [*DEPS, {"path": "more", "md5": "1"}]}, "more"),
        ({"deps": DEPS[:1]}, "data"),
        ({"params": {"params.yaml": {"seed": 1, "train": {"epochs": 5}}}}, "seed"),
        ({"params": {"params.yaml": {"seed": 0}}, "outs": []}, "train, model"),
        ({"cmd": "train harder"}, "its command"),
    ],
)
def test_a_stage_is_unchanged_only_if_its_values_files_and_command_are(tmp_path, changes, said):
    [(_, differs, _)] = changed_stages(*sides(tmp_path, {"train": TRAIN}, {"train": TRAIN | changes}))
    assert differs == said


def test_an_added_stage_and_a_removed_one_are_called_so(tmp_path):
    before, after = sides(tmp_path, {"train": TRAIN, "old": TRAIN}, {"train": TRAIN, "new": TRAIN})
    assert [row[:2] for row in changed_stages(before, after)] == [
        ("train", "unchanged"),
        ("old", "removed"),
        ("new", "added"),
    ]
