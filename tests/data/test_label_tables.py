"""A table of labels that is damaged, or has something else than labels, is refused in a sentence."""

import pytest

from pipeline.data.batches import Listing
from pipeline.data.layout import arrange, natural_order
from pipeline.errors import PipelineError


def classes(name, content):
    listing = Listing(total=None)
    listing.tables[name] = content
    return arrange(["a.png", "b.png"], listing).classes


@pytest.mark.parametrize(
    "line", [b"1", b"null", b"[1]", b'["file_name", "label"]', b'"file_name"', b"[" * 100_000]
)
def test_a_line_that_is_no_object_is_refused(line):
    with pytest.raises(PipelineError, match=r"metadata\.jsonl can't be read as a table"):
        classes("metadata.jsonl", b'{"file_name": "a.png", "label": "x"}\n' + line)


def test_several_labels_of_one_image_are_not_a_class():
    with pytest.raises(PipelineError, match=r"metadata\.jsonl has several labels for a\.png"):
        classes("metadata.jsonl", b'{"file_name": "a.png", "label": ["cat", "dog"]}')


def test_numbers_of_any_length_are_in_order():
    long = 5000 * "1"
    assert natural_order(["10", long, "9", "09", "0", "00"]) == ("0", "00", "09", "9", "10", long)
    table = f"file_name,label\na.png,{long}\nb.png,2\n"
    assert classes("metadata.csv", table.encode()) == ("2", long)
