"""Models and sources are found by the names of their modules."""

import shutil
from pathlib import Path

import pytest

from pipeline.config.modules import PACKAGE, modules_in_use
from pipeline.config.registry import options
from pipeline.config.section import ModelSection
from pipeline.errors import PipelineError

MODEL = """
from typing import Literal
from pipeline.config.section import ModelSection

class Section(ModelSection):
    name: Literal["{name}"]
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return the name of an importable package without modules, and its folder."""
    folder = tmp_path / f"models_{tmp_path.name}"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return folder.name, folder


def test_each_module_is_an_option_unless_its_name_begins_with_an_underscore(package):
    name, folder = package
    for model in ("one", "two"):
        (folder / f"{model}.py").write_text(MODEL.format(name=model))
    (folder / "_shared.py").write_text("WIDTH = 3\n")
    (folder / "notes.md").write_text("no module")
    found = options(name, ModelSection, "name")
    assert [section.__module__ for section in found.__args__] == [f"{name}.one", f"{name}.two"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        MODEL.format(name="other"),
        MODEL.format(name="mine") + MODEL.format(name="mine").replace("Section(", "Twice("),
    ],
)
def test_a_module_without_one_section_of_its_name_is_refused(package, text):
    name, folder = package
    (folder / "mine.py").write_text(text)
    with pytest.raises(PipelineError, match=r'mine\.py must define one .* `name: Literal\["mine"\]`'):
        options(name, ModelSection, "name")


@pytest.fixture
def code(tmp_path):
    """Return a copy of the folders that have options."""
    for room in ("models", "data"):
        shutil.copytree(PACKAGE / room, tmp_path / room)
    return tmp_path


USED = {"model": {"name": "mlp"}, "data": {"sources": [{"kind": "idx"}]}}


def test_the_digests_cover_the_modules_in_use_and_their_imports_and_no_others(code: Path):
    before = modules_in_use(USED, code)
    (code / "models" / "new.py").write_text("# another model")
    (code / "models" / "notes.md").write_text("notes")
    for other in ("models/cnn.py", "data/sources/npm.py", "data/packages.py"):
        (code / other).write_text((code / other).read_text() + "# edited\n")
    assert modules_in_use(USED, code) == before
    for mine, changed in (
        ("models/mlp.py", "model"),
        ("data/sources/idx.py", "sources"),
        ("data/formats/idx.py", "sources"),
    ):
        (code / mine).write_text((code / mine).read_text() + "# edited\n")
        after = modules_in_use(USED, code)
        assert [key for key in after if after[key] != before[key]] == [changed]
        before = after


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("from pipeline.models._part import WIDTH", "_part.py"),
        ("from pipeline.models import _part", "_part.py"),
        ("import pipeline.models._part as part", "_part.py"),
        ("from ._part import WIDTH", "_part.py"),
        ("from . import _part", "_part.py"),
        ("from ..models import _part", "_part.py"),
        ("from pipeline.models._part import WIDTH", "_part/__init__.py"),
    ],
)
def test_a_digest_covers_what_a_module_imports_however_it_is_written(code, line, part):
    own, part = code / "models" / "mine.py", code / "models" / part
    part.parent.mkdir(exist_ok=True)
    own.write_text(f"{line}\n")
    part.write_text("WIDTH = 3\n")
    before = modules_in_use({"model": {"name": "mine"}}, code)
    part.write_text("WIDTH = 4\n")
    after = modules_in_use({"model": {"name": "mine"}}, code)
    assert [key for key in after if after[key] != before[key]] == ["model"]


def test_a_digest_covers_a_model_that_is_a_package(code):
    own = code / "models" / "mine" / "__init__.py"
    own.parent.mkdir()
    own.write_text("WIDTH = 3\n")
    before = modules_in_use({"model": {"name": "mine"}}, code)
    own.write_text("WIDTH = 4\n")
    assert modules_in_use({"model": {"name": "mine"}}, code) != before


def test_values_that_name_no_module_get_digests_and_are_left_to_the_schema(code):
    for values in (
        {},
        {"model": {"name": "../stages/train"}, "data": {"sources": ["x"]}},
        {"model": 3, "data": {"sources": 3}},
    ):
        assert set(modules_in_use(values, code)) == {"model", "backend", "sources"}
