"""When a stage ran on this machine."""

from pipeline.artifacts.computed import computed_when, note_computed
from pipeline.artifacts.workspace import Workspace


def test_when_a_stage_ran_is_known_although_a_full_disk_cut_a_line(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.run.parent.mkdir()
    workspace.run.write_text("{}\n")
    note_computed(workspace, "train")
    expected = computed_when(workspace, "train")
    [file] = workspace.scratch.glob("computed.jsonl")
    with file.open("a") as lines:
        lines.write('{"stage": "train", "res')
    assert computed_when(workspace, "train") == expected
    workspace.run.write_text("{}")
    note_computed(workspace, "train")
    assert computed_when(workspace, "train")
