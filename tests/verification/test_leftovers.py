"""Which folders of trials are left over: those that no process uses."""

import pytest
from filelock import FileLock

from pipeline.artifacts.workspace import Workspace
from pipeline.verification.leftovers import clean, find_leftovers


@pytest.mark.parametrize("suffix", [".lock", ".running"])
def test_a_trial_is_left_over_unless_a_process_holds_one_of_its_locks(tmp_path, suffix):
    workspace = Workspace(tmp_path)
    folder = workspace.scratch / "trials"
    used, dead, other = (folder / name for name in ("0" * 16, "1" * 16, "2" * 16))
    for trial in (used, dead, other):
        trial.mkdir(parents=True)
    dead.with_suffix(suffix).touch()  # As a killed process leaves it.
    with FileLock(used.with_suffix(suffix)):
        found = find_leftovers(workspace)
        assert {path for _, path in found} == {dead, other}
        clean(workspace, found)
        assert used.exists()
        assert not dead.exists()
        assert not other.exists()


def test_a_file_of_another_program_with_a_date_in_its_name_is_not_left_over(tmp_path):
    (tmp_path / ".notes.20261128110000.tmp").touch()
    assert find_leftovers(Workspace(tmp_path)) == []
