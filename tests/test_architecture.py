"""docs/architecture.md matches the code, and all commands and configuration keys are documented."""

import ast
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.artifacts.workspace import RAW_ARRAYS
from pipeline.cli.verbs import app
from pipeline.config.compose import compose

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "src"
PACKAGE = SOURCE / "pipeline"
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()
PROSE = "".join(path.read_text() for path in (*REPOSITORY.glob("README.md"), *REPOSITORY.glob("docs/*.md")))


def folders():
    return sorted(
        str(path.parent.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*/__init__.py")
        if path.parent != PACKAGE
    )


def parts():
    """Return each folder of the package, and each module next to the folders."""
    found = {
        path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    return found - {"__init__"}


# --- the page's arrows against the imports -----------------------------------------------------


def arrows():
    """Return what each part may import according to the diagram, along one or more arrows."""
    below = {}
    for line in re.search(r"flowchart TD\n(.*?)```", PAGE, re.DOTALL)[1].splitlines():
        steps = [{part.strip() for part in step.split("&")} for step in line.split("-->") if step.strip()]
        for upper, lower in pairwise(steps):
            for part in upper:
                below.setdefault(part, set()).update(lower)

    def reached(part):
        direct = below.get(part, set())
        return direct.union(*(reached(other) for other in direct))

    return {part: reached(part) for part in set(below).union(*below.values())}


def imports(path):
    """Yield the parts that a file imports, including imports for type checkers and inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            pytest.fail(f"{path}: imports are absolute")
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        for module in modules:
            package, _, rest = module.partition(".")
            if package == "pipeline":
                yield rest.partition(".")[0]


def part_of(path):
    package, *parts = path.relative_to(SOURCE).with_suffix("").parts
    return package if package == "hydra_plugins" else parts[0]


def files():
    return [path for path in sorted(SOURCE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def test_no_import_goes_against_the_arrows():
    below = arrows()
    against = {
        f"{path.relative_to(SOURCE)} imports {part}"
        for path in files()
        for part in imports(path)
        if part != part_of(path) and part not in below.get(part_of(path), set())
    }
    assert against == set()


def test_the_diagram_has_every_folder_and_module_and_no_cycle():
    below = arrows()  # With a cycle this would never end.
    assert set(below) == parts() | {"hydra_plugins"}
    assert all(part not in below[part] for part in below)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from pipeline.sweeps.grid import Grid", ["sweeps"]),
        ("import pipeline.sweeps.grid", ["sweeps"]),
        ("from pipeline import sweeps", ["sweeps"]),
        ("if TYPE_CHECKING:\n    from pipeline.sweeps import grid", ["sweeps"]),
        ("def f():\n    from pipeline.sweeps import grid", ["sweeps"]),
        ("import numpy", []),
    ],
)
def test_imports_are_found_wherever_they_are(tmp_path, line, found):
    (tmp_path / "module.py").write_text(line)
    assert list(imports(tmp_path / "module.py")) == found


# --- folders and files -------------------------------------------------------------------------


@pytest.mark.parametrize("folder", folders())
def test_the_page_has_the_first_sentence_of_each_folder(folder):
    docstring = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text()))
    assert f"| `{folder}/` | {docstring.splitlines()[0]} |" in PAGE


def test_the_page_has_no_other_folders():
    assert re.findall(r"^\| `(.+)/` \|", PAGE, re.MULTILINE) == folders()


def test_what_the_page_names_exists():
    for link in re.findall(r"`((?:conf|src|[a-z_]+)/(?:[a-z_]+[/.])*[a-z_]*)`", PAGE):
        assert any((root / link).exists() for root in (REPOSITORY, PACKAGE)), link


# --- commands and keys are documented ------------------------------------------------------------


@pytest.mark.parametrize("verb", [command.callback.__name__ for command in app.registered_commands])
def test_each_verb_is_in_a_page(verb):
    assert f"pipeline {verb.replace('_', '-')}" in PROSE


def keys(values, group=""):
    """Yield each key below `values`, with its group in conf/."""
    for name, value in values.items() if isinstance(values, dict) else ():
        if not (isinstance(value, dict) and group == ""):
            yield group, name
        for item in value if isinstance(value, list) else [value]:
            yield from keys(item, group or name)


def settings():
    """Yield each key that can be set with any choice of model and data."""
    for group in ("model", "data"):
        for path in (REPOSITORY / "conf" / group).glob("*.yaml"):
            if "???" not in path.read_text():
                config = compose(REPOSITORY / "conf", [f"{group}={path.stem}"]).model_dump(mode="json")
                yield from keys({name: value for name, value in config.items() if name != "modules"})


def test_each_key_has_a_comment_where_it_is_set_or_is_in_a_page():
    commented = set()
    for path in (REPOSITORY / "conf").rglob("*.yaml"):
        group = "" if path.parent.name == "conf" else path.parent.name
        previous = ""
        for line in path.read_text().splitlines():
            key = re.match(r"\s*(?:- )?(\w+):", line)
            if key and (" # " in line or previous.strip().startswith("#")):
                commented.add((group, key[1]))
            previous = line
    missing = {key for key in set(settings()) - commented if f"`{'.'.join(filter(None, key))}`" not in PROSE}
    # The keys of the digests are the names of the files.
    assert missing - {("data", name) for name in RAW_ARRAYS} == set()


def test_no_python_file_has_more_than_300_lines():
    folders_of_code = (REPOSITORY / name for name in ("src", "tests", "benchmarks"))
    paths = (path for folder in folders_of_code for path in folder.rglob("*.py"))
    long = {str(path.relative_to(REPOSITORY)): path.read_text().count("\n") for path in paths}
    assert {path: lines for path, lines in long.items() if lines > 300} == {}


def test_no_two_test_files_have_one_name():
    """pytest imports them by their names, and refuses the second only when both are run at once."""
    names = Counter(path.name for path in (REPOSITORY / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_percentages_are_written_with_a_space():
    glued = [path.name for path in SOURCE.rglob("*.py") if re.search(r":[.,\d]*%\}|\d%\"", path.read_text())]
    assert glued == []
