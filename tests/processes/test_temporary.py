"""Temporary files are removed by the process that made them or by the next one; other files are not."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.processes.temporary import own_temporary_folder, temporary_folder

WAITING = """
import signal, tempfile
from pathlib import Path
from pipeline.processes.temporary import own_temporary_folder
with own_temporary_folder():
    Path(tempfile.mkdtemp(), "leaderboard.csv").touch()
    print("there", flush=True)
    signal.pause()
"""


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A new folder in place of the system's folder for temporary files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture
def waiting(system):
    """A process that has written temporary files."""
    with subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"there\n"
        yield process
        process.kill()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_next_process_removes_folders_of_killed_but_not_of_running_processes(system, waiting):
    [of_other] = names(system)
    with temporary_folder() as own:
        assert names(system) == sorted([of_other, own.name])
    assert names(system) == [of_other]
    waiting.send_signal(signal.SIGKILL)
    waiting.wait()
    assert names(system) == [of_other]
    with temporary_folder() as own:
        assert names(system) == [own.name]
    assert names(system) == []


@pytest.mark.parametrize(
    "name", ["pipeline-test", "pipeline-training", "pipeline~", "pipeline~old", "pipeline~abcd1234.bak"]
)
def test_a_users_folder_named_pipeline_something_is_not_removed(system, name):
    """Users may have a clone or notes in /tmp, next to the folders of this package."""
    (system / name).mkdir()
    (system / name / "README.md").touch()
    # The name is that of such a folder, but it is a file, or a link.
    (system / "pipeline~abcd1234").touch()
    (system / "pipeline~abcd5678").symlink_to(system / name)
    with temporary_folder():
        pass
    assert names(system) == sorted([name, "pipeline~abcd1234", "pipeline~abcd5678"])
    assert (system / name / "README.md").exists()


def test_a_new_folder_that_another_process_removed_is_created_again(system, monkeypatch):
    made, make = [], tempfile.mkdtemp

    def taken(**arguments):
        made.append(make(**arguments))
        if len(made) == 1:
            Path(made[0]).rmdir()
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", taken)
    with temporary_folder() as folder:
        assert [str(folder)] == made[1:]
        assert folder.exists()


def test_temporary_files_are_in_an_own_folder_only_within_the_context(system):
    with own_temporary_folder():
        assert str(Path(tempfile.mkdtemp()).parent) == os.environ["TMPDIR"] != str(system)
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(system)
    assert names(system) == []


def test_a_missing_place_for_temporary_files_is_reported_in_a_sentence(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    with pytest.raises(PipelineError, match="TMPDIR"), temporary_folder():
        pass
