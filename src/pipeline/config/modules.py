"""Digests of the code of the options in use, on which stages depend in addition to the files in dvc.yaml.

DVC's dependencies cannot be conditional. So dvc.yaml lists the code that all trainings share, and a digest of
the chosen option's own module is one of the params: a new model or source leaves the results of the others
valid, and an edited one invalidates only its own.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
# Packages whose modules are options, or are used by only some of the options.
_FOLLOWED = ("models", "data", "training.backends")
# Packages whose own __init__.py is declared in dvc.yaml, or has no code.
_DECLARED = (*_FOLLOWED, "data.formats", "data.sources")


def modules_in_use(values: Mapping[str, Any], package: Path = PACKAGE) -> dict[str, str]:
    """For `model`, `backend` and `sources`, return a SHA-256 over the option's module and those it imports.

    A name without a module is ignored: the configuration may be invalid.
    """
    sources = _get(values, "data", "sources")
    kinds = [_get(source, "kind") for source in (sources if isinstance(sources, list) else [])]
    names = {
        "model": [f"models.{_get(values, 'model', 'name')}"],
        "backend": [f"training.backends.{_get(values, 'train', 'backend')}"],
        "sources": [f"data.sources.{kind}" for kind in kinds],
    }
    return {
        option: _digest([path for name in chosen for path in _files(package, name)], package)
        for option, chosen in names.items()
    }


def _get(values: Any, *keys: str) -> Any:
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _digest(modules: Iterable[Path], package: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(_with_imports(modules, package)):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(package).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def _with_imports(modules: Iterable[Path], package: Path) -> set[Path]:
    """Return the modules and those of the followed packages that they import, directly or indirectly."""
    found: set[Path] = set()
    waiting = [path for path in modules if path.is_file()]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imports(path, package)
    return found


def _imports(path: Path, package: Path) -> Iterator[Path]:
    """Yield the files of the followed packages that a module imports."""
    place = ("pipeline", *path.relative_to(package).parts)
    for name in _names_in(path.read_text(encoding="utf-8"), place):
        yield from filter(Path.is_file, _files(package, name))


@cache
def _names_in(text: str, place: tuple[str, ...]) -> list[str]:
    """Return what the text of the module at `place` may import, by the names in `pipeline`."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # A relative import starts at the module's own package, or with more dots above it.
            base = place[: -node.level] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    followed = tuple(f"pipeline.{one}." for one in _FOLLOWED)
    return [name.removeprefix("pipeline.") for name in names if f"{name}.".startswith(followed)]


def _files(package: Path, name: str) -> list[Path]:
    """Return where the code of the module or package `name` in `package` can be."""
    place = "/".join(name.split("."))
    return [package / f"{place}.py", *([] if name in _DECLARED else [package / place / "__init__.py"])]
