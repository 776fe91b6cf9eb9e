"""Digests of the code of the options in use, on which stages depend in addition to the files in dvc.yaml.

DVC's dependencies cannot be conditional. So dvc.yaml lists the code that all trainings share, and a digest of
the chosen option's own module is one of the params: a new model or source leaves the results of the others
valid, and an edited one invalidates only its own.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
# Packages whose modules are options, or are used by only some of the options.
_FOLLOWED = ("models", "data", "training.backends")


def modules_in_use(values: Mapping[str, Any], package: Path = PACKAGE) -> dict[str, str]:
    """For `model`, `backend` and `sources`, return a SHA-256 over the option's module and those it imports.

    A name without a module is ignored: the configuration may be invalid.
    """
    sources = _get(values, "data", "sources")
    kinds = [_get(source, "kind") for source in (sources if isinstance(sources, list) else [])]
    return {
        "model": _digest([package / "models" / f"{_get(values, 'model', 'name')}.py"], package),
        "backend": _digest(
            [package / "training" / "backends" / f"{_get(values, 'train', 'backend')}.py"], package
        ),
        "sources": _digest([package / "data" / "sources" / f"{kind}.py" for kind in kinds], package),
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
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        name = node.module.removeprefix("pipeline.")
        if name == node.module or not f"{name}.".startswith(tuple(f"{one}." for one in _FOLLOWED)):
            continue
        place = package.joinpath(*name.split("."))
        for candidate in (place.with_suffix(".py"), *(place / f"{alias.name}.py" for alias in node.names)):
            if candidate.is_file():
                yield candidate
