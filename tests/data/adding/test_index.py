"""A damaged index of a source counts as none: the source is then read as if for the first time."""

import json

import pytest

from pipeline.data.adding.index import Index, changes, read_index, write_index

INDEX = Index("s", {"a.png": [1, 2, 3]}, {"a.png": ["cat", "d1"]})


def test_an_index_is_read_as_it_was_written(tmp_path):
    write_index(tmp_path / "index.json", INDEX)
    assert read_index(tmp_path / "index.json") == INDEX
    assert changes(INDEX, INDEX) == []


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 0},
        {"files": 1},
        {"images": 1},
        {"images": {"a": 1}},
        {"images": {"a": ["x"]}},
        {"more": 1},
    ],
)
def test_an_index_of_another_shape_counts_as_none(tmp_path, damage):
    path = tmp_path / "index.json"
    path.write_text(json.dumps({"version": 1, **vars(INDEX), **damage}))
    assert read_index(path) is None


@pytest.mark.parametrize("content", [None, b"", b"{", b"null", b"1", b'"x"', b"[]", b"{}", b"\xff"])
def test_a_file_that_is_no_index_counts_as_none(tmp_path, content):
    path = tmp_path / "index.json"
    if content is not None:
        path.write_bytes(content)
    assert read_index(path) is None
