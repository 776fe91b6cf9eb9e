"""All tests that docs/faults.md names exist."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
ROWS = re.findall(
    r"^\| (?!---|fault|input)(.+?) \|.*\| (.*?) \|$", (REPOSITORY / "docs/faults.md").read_text(), re.M
)


def test_each_row_names_tests_and_each_of_them_exists():
    sources = "".join(path.read_text() for path in (REPOSITORY / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"^(?:async )?def (test_\w+)\(", sources, re.M))
    assert len(ROWS) >= 39
    for fault, cell in ROWS:
        named = re.findall(r"`(test_\w+)`", cell)
        assert named, fault
        assert set(named) <= defined, fault
