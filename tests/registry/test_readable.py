"""What git or a shell passes on in other encodings does not keep a promotion from being recorded."""

import subprocess

import pytest

from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError
from pipeline.registry.promotion import promote, rollback
from pipeline.registry.registered import _who
from pipeline.tracking.lineage import code_of

LATIN_1 = b"Jos\xe9"


@pytest.fixture
def repository(tmp_path):
    for arguments in (
        ["init", "-q"],
        ["config", "user.email", "jose@example.com"],
        ["config", "user.name", LATIN_1],
        ["commit", "-q", "--allow-empty", "-m", "first"],
        ["checkout", "-q", "-b", LATIN_1],
    ):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True)
    return Workspace(tmp_path)


def test_a_name_or_a_branch_in_another_encoding_can_be_stored(repository):
    assert _who(repository) == "Jos? <jose@example.com>"
    assert code_of(repository).branch == "Jos?"


def test_a_reason_in_another_encoding_is_refused_before_anything_else(repository):
    reason = LATIN_1.decode(errors="surrogateescape")
    with pytest.raises(PipelineError, match=r"--reason 'Jos.* has bytes that are not UTF-8"):
        rollback("letters", "champion", None, None, repository, reason)
    with pytest.raises(PipelineError, match=r"--reason 'Jos.* has bytes that are not UTF-8"):
        promote("r", "letters", "champion", None, None, repository, reason=reason)
