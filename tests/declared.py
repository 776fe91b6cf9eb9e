"""What the stages import, and the files that dvc.yaml declares for them."""

import ast
import functools
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1]
STAGES = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
EVERYBODY = {"src/pipeline/errors.py", "src/pipeline/console.py", "src/pipeline/artifacts/workspace.py"}

# Modules and packages that a stage may import without declaring them.
EXEMPT = {
    "pipeline.config": "values arrive through params",
    "pipeline.artifacts.workspace": "names paths, and writes bytes as they are given",
    "pipeline.artifacts.integrity": "refuses, and changes nothing",
    "pipeline.errors": "what people see of a failure",
    "pipeline.processes.system": "has processes end with their parents",
    "pipeline.console": "what people see of progress",
}

# Options are imported by name; the params contain a digest of those in use.
DIGESTS = {
    "modules.model": "pipeline.models",
    "modules.backend": "pipeline.training.backends",
    "modules.sources": "pipeline.data.sources",
}

# Packages of which all modules are imported, whatever the params.
DISCOVERED = {"pipeline.plots.evaluation"}


class Imports(ast.NodeVisitor):
    """Collect the modules of this package that a module imports, except those for type checkers only."""

    def __init__(self):
        self.found = set()

    def visit_If(self, node):
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_ImportFrom(self, node):
        module = node.module or ""
        inner = {f"{module}.{alias.name}" for alias in node.names}
        self.found |= {name for name in {module, *inner} if name.startswith("pipeline.") and exists(name)}

    def visit_Import(self, node):
        self.found |= {alias.name for alias in node.names if alias.name.startswith("pipeline.")}


def exists(module):
    return (REPOSITORY / file_of(module)).is_file()


@functools.cache
def imported_by(stage):
    """Return the modules that a stage imports, directly or indirectly, without following exempt ones."""
    found, waiting = set(), [f"pipeline.stages.{stage}"]
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        found.add(module)
        if is_exempt(module) and not (stage == "compose" and module.startswith("pipeline.config")):
            continue
        visitor = Imports()
        visitor.visit(ast.parse((REPOSITORY / file_of(module)).read_text()))
        waiting += visitor.found
        if module == "pipeline.training.backends":
            # Each module is an option, and what they share is a dependency.
            for path in (REPOSITORY / file_of(module)).parent.glob("*.py"):
                visitor.visit(ast.parse(path.read_text()))
            waiting += [name for name in visitor.found if not name.startswith(f"{module}.")]
        for package in DISCOVERED & visitor.found:
            folder = (REPOSITORY / file_of(package)).parent
            waiting += [f"{package}.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"]
    return found


def is_exempt(module):
    return any(module == name or module.startswith(f"{name}.") for name in EXEMPT)


def file_of(module):
    path = "src/" + module.replace(".", "/")
    return f"{path}/__init__.py" if (REPOSITORY / path).is_dir() else f"{path}.py"


def files_of(dep):
    """Return the modules that a declared path stands for; for a folder, all but an empty __init__.py."""
    path = REPOSITORY / dep
    if path.is_file():
        return {dep}
    return {str(file.relative_to(REPOSITORY)) for file in path.rglob("*.py")} - DOCSTRING_ONLY


def only_a_docstring(path):
    body = ast.parse(path.read_text()).body
    return len(body) == 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)


DOCSTRING_ONLY = {
    str(path.relative_to(REPOSITORY))
    for path in (REPOSITORY / "src" / "pipeline").rglob("__init__.py")
    if only_a_docstring(path)
}
