"""The lines of a journal, which outlive the version of the pipeline that wrote them."""

import hashlib
import json

import pytest

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.registry.journal import BrokenError, Entry, folder_of, parse

# As written by earlier versions, of which users have journals.
FIRST = (
    '{"number":1,"time":"2026-01-02 03:04:05","who":"Ada <ada@example.org>","action":"promote",'
    '"alias":"champion","before":null,"version":"1","run":"letters-mlp-4bf76b","run_id":"4bf76b",'
    '"model_sha256":"a1","forced":false,"reason":"a beginning – 1","checks":[{"name":"run","passed":true}],'
    '"previous":"0000000000000000000000000000000000000000000000000000000000000000"}'
)
SECOND = (
    '{"number":2,"time":"2026-01-02 03:04:06","who":"Bob <bob@example.org>","action":"rollback",'
    '"alias":"champion","before":"1","version":"2","run":"letters-mlp-5c0a11","run_id":"5c0a11",'
    '"model_sha256":"b2","forced":true,"reason":"","checks":[],'
    f'"previous":"{hashlib.sha256(FIRST.encode()).hexdigest()}"}}'
)


def test_lines_of_earlier_versions_are_read_and_written_as_they_were():
    first, second = parse([FIRST, SECOND], "here")
    assert (first.number, first.before, first.forced, first.reason) == (1, None, False, "a beginning – 1")
    assert (second.action, second.before, second.version, second.forced) == ("rollback", "1", "2", True)
    assert [first.dump(), second.dump()] == [FIRST, SECOND]
    bare = Entry(1, "", "", "promote", "champion", None, "1", "", "", "")
    assert parse([bare.dump()], "here")[0].previous == first.previous
    assert (bare.forced, bare.reason, bare.checks) == (False, "", ())


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([FIRST, SECOND[:-1]], "Line 2 of here is damaged"),
        (["[]"], "Line 1 of here is damaged"),
        ([json.dumps(json.loads(FIRST) | {"more": 1})], "Line 1 of here is damaged"),
        ([SECOND], "Line 1 of here does not follow"),
        ([FIRST, SECOND.replace('"number":2', '"number":3')], "Line 2 of here does not follow"),
        ([FIRST.replace("Ada", "Bob"), SECOND], "Line 2 of here does not follow"),
    ],
)
def test_a_line_that_was_changed_is_named(lines, said):
    with pytest.raises(BrokenError, match=said):
        parse(lines, "here")


def test_each_store_has_its_own_journals_whoever_asks_it(tmp_path, monkeypatch):
    tracking = TrackingSection(uri=None, experiment="tests", run_name=None, timeout=5.0)

    def folder(uri):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        return folder_of(tracking, Workspace(tmp_path)).relative_to(tmp_path).as_posix()

    assert folder("") == ".pipeline/promotions/local"
    # As written by earlier versions: another name would hide the journals that are there.
    assert folder("https://mlflow.example.org") == ".pipeline/promotions/a664daec050f"
    assert folder("https://ada:secret@mlflow.example.org") == folder("https://mlflow.example.org")
    assert folder("https://other.example.org") != folder("https://mlflow.example.org")
