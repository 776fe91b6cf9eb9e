"""`pipeline report --output` writes a file, and where there is something else, it destroys nothing."""

import os
import threading

import pytest

from pipeline.cli import runs
from pipeline.errors import PipelineError
from pipeline.results import change_report


@pytest.fixture(autouse=True)
def reported(monkeypatch):
    monkeypatch.setattr(change_report, "report", lambda *_: "# A report\n")


def test_a_file_is_written_or_replaced(tmp_path):
    for _ in range(2):
        runs.report("HEAD", tmp_path / "report.md")
        assert (tmp_path / "report.md").read_text() == "# A report\n"


def test_a_link_remains_a_link(tmp_path):
    (tmp_path / "link.md").symlink_to(tmp_path / "report.md")
    runs.report("HEAD", tmp_path / "link.md")
    assert (tmp_path / "link.md").is_symlink()
    assert (tmp_path / "report.md").read_text() == "# A report\n"


def test_a_pipe_remains_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_text()), daemon=True)
    reader.start()
    runs.report("HEAD", tmp_path / "pipe")
    reader.join(10)
    assert found == ["# A report\n"]
    assert (tmp_path / "pipe").is_fifo()


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "kept.txt").touch()
    with pytest.raises(PipelineError, match="docs is a folder"):
        runs.report("HEAD", tmp_path / "docs")
    assert (tmp_path / "docs" / "kept.txt").exists()
