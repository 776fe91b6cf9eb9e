"""What is wrong with a value or a key, in a sentence for the person who wrote it."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.config.schema import Composed, Config
from pipeline.config.section import Section
from pipeline.errors import PipelineError

Schema = TypeVar("Schema", bound=Config)


def validate(values: Mapping[str, Any], schema: type[Schema], where: str = "conf/") -> Schema:
    """Check plain values against the schema.

    Raises:
        PipelineError: a sentence per fault that names the key, its value and what is allowed.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        faults = [_sentence(fault) for fault in error.errors()]
        raise PipelineError(f"The configuration in {where} is refused.\n" + "\n".join(faults)) from None


def _sentence(fault: ErrorDetails) -> str:
    """What pydantic found, for the person who wrote the value."""
    tags = _tags()
    key = ".".join(str(part) for part in fault["loc"] if part not in tags)
    if fault["type"] == "extra_forbidden":
        return _no_such_key(key, _siblings(key))
    if fault["type"] == "missing":
        return f"{key}: the key is missing."
    if fault["type"] == "value_error":
        return f"{key + ': ' if key else ''}{fault['ctx']['error']}."
    should = re.sub(r"^\w+ should", "should", fault["msg"])
    # A refused address may hold a password.
    value = re.sub(r"//[^/\s]*@", "//...@", repr(fault["input"]))
    return f"{key} is {value}: {should}{_range(key)}."


_SIGNS = {"gt": "above ", "ge": "from ", "lt": "below ", "le": "up to "}


def _range(key: str) -> str:
    """The bounds of a number in the schema, for a message: " (from 1 up to 400)"."""
    fields: list[Any] = []
    sections: list[type[BaseModel]] = [Composed]
    for name in key.split("."):
        fields = [section.model_fields[name] for section in sections if name in section.model_fields]
        sections = [section for field in fields for section in _sections(field.annotation)]
    metadata = fields[0].metadata if fields else []
    bounds = [
        f"{word}{getattr(constraint, sign):,}"
        for sign, word in _SIGNS.items()
        for constraint in metadata
        if hasattr(constraint, sign)
    ]
    return f" ({' '.join(bounds)})" if bounds else ""


def _tags() -> set[str]:
    """What tells the members of a union apart; in the location of a fault it stands among the keys."""
    literals = [
        get_args(field.annotation)
        for section in _subclasses(Section)
        for field in section.model_fields.values()
        if get_origin(field.annotation) is Literal
    ]
    return {values[0] for values in literals if len(values) == 1}


def _subclasses(section: type[Section]) -> list[type[Section]]:
    direct = section.__subclasses__()
    return [*direct, *(below for found in direct for below in _subclasses(found))]


def _no_such_key(key: str, names: Sequence[str]) -> str:
    if key in _keys():
        group, dot, _ = key.partition(".")
        if not dot:
            return f"{key}: conf/config.yaml lacks the key; put it back."
        return f"{key}: the chosen {group} has no such key; another one in conf/{group} has."
    return f"{key}: there is no such key.{nearest(key, names) or nearest(key, _siblings(key))}"


def _siblings(key: str) -> list[str]:
    """The keys of the schema in the same section as `key`."""
    return [name for name in _keys() if name.rpartition(".")[0] == key.rpartition(".")[0]]


def _keys(section: type[BaseModel] = Composed, prefix: str = "") -> list[str]:
    """All dotted keys of the schema, sections and leaves, but for those of a list's items."""
    found = []
    for name, field in section.model_fields.items():
        found.append(f"{prefix}{name}")
        if get_origin(field.annotation) is not tuple:
            for below in _sections(field.annotation):
                found += _keys(below, f"{prefix}{name}.")
    return list(dict.fromkeys(found))


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The section that an annotation stands for, or all that a choice of sections does."""
    options = (annotation, *get_args(annotation))
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]


def refused_by_hydra(error: Exception) -> str:
    """Hydra's complaint; of a key that is not there, in words that lead to the right one."""
    text = one_line(error)
    wanted = re.match(r"Could not (?:override|delete from config)[^']*'([^']+)'", text)
    return _no_such_key(wanted[1], _keys()) if wanted else text


def nearest(wanted: str, names: Sequence[str]) -> str:
    """A sentence that names those of `names` that may have been meant, or "" if none is near."""
    leaf = wanted.rpartition(".")[2]
    near = [name for name in names if leaf == "".join(word[0] for word in name.rpartition(".")[2].split("_"))]
    near += difflib.get_close_matches(wanted, names, n=2, cutoff=0.6)
    by_leaf = {name.rpartition(".")[2]: name for name in names}
    near += [by_leaf[match] for match in difflib.get_close_matches(leaf, by_leaf, n=2, cutoff=0.6)]
    near = list(dict.fromkeys(near))
    if near:
        return " Did you mean " + " or ".join(near[:3]) + "?"
    return f" There are: {', '.join(names)}." if names and len(names) < 30 else ""


def one_line(error: Exception) -> str:
    """What an exception of OmegaConf's or Hydra's says, without its details."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(line for line in lines if not line.startswith("object_type="))
