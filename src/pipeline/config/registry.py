"""Find options by name: each module of a folder is one option, with the section that configures it."""

import importlib
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any, Union, get_args

from pipeline.config.section import Section
from pipeline.errors import PipelineError


@cache
def options(package: str, base: type[Section], key: str) -> Any:
    """Return the union of the sections of the modules in a package.

    `key` is the field of their sections that holds the module's name, as a literal. Each module is an option,
    unless its name begins with _.

    Raises:
        PipelineError: If a module has no such section, more than one, or one with another name.
    """
    folder: ModuleType = importlib.import_module(package)
    names = sorted(found.name for found in pkgutil.iter_modules(folder.__path__))
    sections = tuple(_section(f"{package}.{name}", base, key) for name in names if not name.startswith("_"))
    return Union[sections]  # noqa: UP007 (their number is not known)


def _section(name: str, base: type[Section], key: str) -> type[Section]:
    module = importlib.import_module(name)
    sections = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == name
    ]
    option = name.rpartition(".")[2]
    if len(sections) != 1 or get_args(sections[0].model_fields[key].annotation) != (option,):
        raise PipelineError(
            f"{module.__file__} must define one subclass of {base.__name__}, with the field "
            f'`{key}: Literal["{option}"]`: the settings of the option {option}. A module whose name begins '
            "with _ is not an option."
        )
    return sections[0]
