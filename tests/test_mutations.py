"""The mutation benchmark makes one change at a time and keeps the reasons on its page."""

import ast

import pytest
from benchmarks import mutants as mutants_module
from benchmarks import mutations
from benchmarks.mutants import mutants
from benchmarks.mutations import MODULES, render

SOURCE = '''\
"""Nothing to change in words."""
if TYPE_CHECKING:
    from a import b
LIMIT: int | None = 3
def f(x: int | None = None) -> bool | None:
    say(f"{x < 3}")
    if x <= LIMIT and not x:
        raise ValueError("not " + "this")
    self.y = max(x)
    return True
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "src" / "pipeline").mkdir(parents=True)
    (tmp_path / "src" / "pipeline" / "toy.py").write_text(SOURCE)
    monkeypatch.setattr(mutants_module, "REPOSITORY", tmp_path)
    return list(mutants("toy"))


def test_each_mutant_has_one_change_to_what_the_code_does(toy):
    changes = {(mutant.before, mutant.after) for mutant in toy}
    assert changes >= {
        ("3", "4"),
        ("x <= LIMIT", "x < LIMIT"),
        ("x <= LIMIT and (not x)", "x <= LIMIT or not x"),
        ("not x", "x"),
        ("raise ValueError('not ' + 'this')", "pass"),
        ("self.y = max(x)", "pass"),
        ("max", "min"),
        ("True", "False"),
    }
    lines = ast.unparse(ast.parse(SOURCE)).splitlines()
    for mutant in toy:
        mutated = mutant.source.splitlines()
        assert sum(one != other for one, other in zip(lines, mutated, strict=True)) == 1
        assert "int | None = 4" in mutant.source or "int | None = 3" in mutant.source
        assert "say(f'{x < 3}')" in mutant.source


def test_mutants_of_equal_lines_have_different_names(toy, tmp_path):
    (tmp_path / "src" / "pipeline" / "toy.py").write_text("first(1)\nsecond(2)\nfirst(1)\n")
    rows = [mutant.row for mutant in mutants("toy") if "pass" in mutant.row]
    assert rows == [
        "`toy` | `first(1)` | `first(1)` → `pass`",
        "`toy` | `second(2)` | `second(2)` → `pass`",
        "`toy` | `first(1)` | `first(1)` → `pass` (2)",
    ]
    page = render({"toy": (7, 4, 3)}, dict.fromkeys(rows, "Same: it does nothing."))
    assert "| `toy` | 7 | 4 | 3 | 3 | 100 % |" in page
    assert dict(mutations._SURVIVOR.findall(page)) == dict.fromkeys(rows, "Same: it does nothing.")


def test_the_page_counts_the_noticeable_mutants_and_can_be_read_again(tmp_path, monkeypatch):
    same, weak = "`a/b` | `y = x \\| 1` | `x \\| 1` → `x & 1`", "`a/b` | `y = 1` | `1` → `2`"
    page = render({"a/b": (20, 12, 2)}, {same: "Same: x is 1.", weak: "No test."})
    assert "| `a/b` | 20 | 12 | 2 | 1 | 91 % |" in page
    assert "**10 of 11** (91 %)" in page
    monkeypatch.setattr(mutations, "PAGE", tmp_path / "page.md")
    mutations.PAGE.write_text(page)
    assert mutations._read_page() == ({"a/b": (20, 12, 2)}, {same: "Same: x is 1.", weak: "No test."})


@pytest.mark.parametrize("module", MODULES)
def test_each_module_has_fast_tests(module):
    assert mutations.tests_of(module, mutations.REPOSITORY)
