"""Options that are found by name: each module of a folder is one, with the section that configures it."""

import importlib
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any, Union

from pipeline.config.section import Section
from pipeline.errors import PipelineError


@cache
def options(package: str, base: type[Section]) -> Any:
    """The union of the sections of the modules in a package.

    Args:
        package: such as `pipeline.models`; each of its modules is an option, called as the module is.
        base: what the module's section is a subclass of.

    Raises:
        PipelineError: a module has no such section, or more than one.
    """
    folder: ModuleType = importlib.import_module(package)
    sections: list[type[Section]] = []
    for found in sorted(pkgutil.iter_modules(folder.__path__), key=lambda module: module.name):
        module = importlib.import_module(f"{package}.{found.name}")
        mine = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
        ]
        if len(mine) != 1:
            raise PipelineError(
                f"{module.__file__} must define one subclass of {base.__name__}, for the settings of the "
                f"option {found.name}; it defines {len(mine)}."
            )
        sections += mine
    return Union[tuple(sections)]  # noqa: UP007 (their number is not known)
