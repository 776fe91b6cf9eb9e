"""Error messages for the configuration: one sentence on what is wrong with a key or a value."""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pipeline.config.schema import Composed
from pipeline.config.section import WORDS, Section
from pipeline.errors import PipelineError

Schema = TypeVar("Schema", bound=Section)


def validate(
    values: Mapping[str, Any], schema: type[Schema], where: str = "conf/", overridden: Collection[str] = ()
) -> Schema:
    """Validate plain values against a schema.

    For the message, `where` says where the values come from, and `overridden` which keys the command line
    sets.

    Raises:
        PipelineError: If a value is invalid; for each error, one sentence names the key, its value and what
            is allowed.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        faults = error.errors()
        # A list that is too short only because its items are invalid needs no sentence of its own.
        reported = [fault for fault in faults if fault["type"] != "too_short" or not _is_above(fault, faults)]
        keys = [_key(fault) for fault in reported]
        is_overridden = all(any(f"{key}.".startswith(f"{name}.") for name in overridden) for key in keys)
        # Of values that do not fit together, some may come from the files and others from the command line.
        is_mixed = any(name.startswith(f"{key}.") for key in keys for name in overridden)
        heading = "The command line" if is_overridden else f"The configuration in {where}"
        if is_mixed and not is_overridden:
            heading += " with the values of the command line"
        lines = [_sentence(fault, key) for fault, key in zip(reported, keys, strict=True)]
        raise PipelineError(f"{heading} is invalid.\n" + "\n".join(lines)) from None


def _is_above(fault: ErrorDetails, faults: Sequence[ErrorDetails]) -> bool:
    depth = len(fault["loc"])
    return any(other["loc"][:depth] == fault["loc"] and len(other["loc"]) > depth for other in faults)


def _key(fault: ErrorDetails) -> str:
    tags = _tags()
    return ".".join(str(part) for part in fault["loc"] if part not in tags)


def _sentence(fault: ErrorDetails, key: str) -> str:
    """Describe an error that pydantic found, for the person who wrote the value."""
    kind, given, context = fault["type"], fault["input"], fault.get("ctx", {})
    if kind == "extra_forbidden":
        return _no_such_key(key, _siblings(key))
    if kind == "missing":
        return f"{key}: the key is missing."
    if kind == "value_error":
        return f"{key + ': ' if key else ''}{context['error']}."
    if kind == "union_tag_invalid":
        name = context["discriminator"].strip("'")
        return (
            f"{key}.{name} is {context['tag']!r}: should be {context['expected_tags'].replace(', ', ' or ')}."
        )
    # A refused address may hold a password.
    value = re.sub(r"//\S*@", "//...@", repr(given))
    fields = _fields(key)
    if isinstance(given, str) and given.lower() == "none" and any(_may_be_null(field) for field in fields):
        return f"{key} is {value}: write null for no value."
    should = re.sub(r"^\w+ should", "should", fault["msg"])
    if kind == "tuple_type":
        should = f"should be a list: [{given}]"
    elif kind in ("model_type", "model_attributes_type"):
        should = "should be a section with its own keys"
    elif kind == "string_type" and not isinstance(given, list | dict):
        should = "should be text: put quotes around it (in a shell, two kinds: \"'1'\")"
    elif kind == "string_pattern_mismatch" and context["pattern"] in WORDS:
        should = f"should be {WORDS[context['pattern']]}"
    return f"{key} is {value}: {should}{_range(fields)}."


_SIGNS = {"gt": "above ", "ge": "from ", "lt": "below ", "le": "up to "}


def _range(fields: Sequence[FieldInfo]) -> str:
    """Return the bounds of a number in the schema, such as " (from 1 up to 400)"."""
    bounds = [
        f"{word}{getattr(constraint, sign):,}"
        for sign, word in _SIGNS.items()
        for field in fields[:1]
        for constraint in field.metadata
        if hasattr(constraint, sign)
    ]
    return f" ({' '.join(bounds)})" if bounds else ""


def _fields(key: str) -> list[FieldInfo]:
    """Return the fields of the schema that a dotted key may refer to."""
    fields: list[FieldInfo] = []
    sections: list[type[BaseModel]] = [Composed]
    for name in key.split("."):
        fields = [section.model_fields[name] for section in sections if name in section.model_fields]
        sections = [section for field in fields for section in _sections(field.annotation)]
    return fields


def _may_be_null(field: FieldInfo) -> bool:
    return NoneType in get_args(field.annotation)


def _tags() -> set[str]:
    """Return the tags of the members of unions, which pydantic lists among the keys of an error."""
    literals = [
        get_args(field.annotation)
        for section in _subclasses(Section)
        for field in section.model_fields.values()
        if get_origin(field.annotation) is Literal
    ]
    return {values[0] for values in literals if len(values) == 1}


def _subclasses(section: type[Section]) -> Iterator[type[Section]]:
    for found in section.__subclasses__():
        yield found
        yield from _subclasses(found)


def _no_such_key(key: str, names: Sequence[str]) -> str:
    group, dot, _ = key.partition(".")
    if group == "modules":
        return f"{key}: conf/ has no such key; it is computed from the code."
    if group == "hydra":
        more = " `python -m pipeline --cfg hydra` shows the keys of Hydra."
        return f"{key}: there is no such key.{nearest(key, names) or more}"
    if key in _keys():
        if not dot:
            return f"{key}: conf/config.yaml lacks the key; put it back."
        return (
            f"{key}: the chosen {group} has no such key, but another one in conf/{group} does. Put what "
            f"an experiment changes of one {group} into a file of conf/{group} that the experiment chooses."
        )
    return f"{key}: there is no such key.{nearest(key, names) or nearest(key, _siblings(key))}"


def _siblings(key: str) -> list[str]:
    """Return the keys of the schema in the same section as `key`."""
    return [name for name in _keys() if name.rpartition(".")[0] == key.rpartition(".")[0]]


def _keys(section: type[BaseModel] = Composed, prefix: str = "") -> list[str]:
    """Return all dotted keys of the schema, sections and leaves, except those of the items of lists."""
    found = []
    for name, field in section.model_fields.items():
        if name == "modules":
            continue
        found.append(f"{prefix}{name}")
        if get_origin(field.annotation) is not tuple:
            for below in _sections(field.annotation):
                found += _keys(below, f"{prefix}{name}.")
    return list(dict.fromkeys(found))


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """Return the section that an annotation names, or all members of a union of sections."""
    options = (annotation, *get_args(annotation))
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]


def refused_by_hydra(error: Exception) -> str:
    """Describe an error of Hydra; where it names a key, suggest the right one."""
    text = one_line(error)
    if match := re.match(r"In '([\w/.-]+)': (?:\w+ raised while composing config: )?(.*)", text):
        return f"{match[1]}.yaml: {_of_hydra(match[2], error)}"
    return _of_hydra(text, error)


def _of_hydra(text: str, error: Exception) -> str:
    if text.startswith("Cannot merge DictConfig with ListConfig"):
        return "it has a list where the configuration has a section with keys."
    if match := re.match(r"Could not override '([^']+)'\. No match in the defaults list", text):
        groups = [name for name in Composed.model_fields if name != "modules"]
        return f"there is no group {match[1]}.{nearest(match[1], groups)}"
    if match := re.match(
        r"Could not (?:override|delete from config)[^']*'([^']+)'|Key .* not in .* full_key: (\S+)$", text
    ):
        return _no_such_key(match[1] or match[2], _keys())
    if match := re.match(r"Interpolation key '([^']+)' not found.*full_key: (\S+)", text):
        return f"{match[2]} refers to ${{{match[1]}}}: there is no such key.{nearest(match[1], _keys())}"
    if match := re.match(r"Could not append to config.*already at '([^']+)'", text):
        return f"{match[1]} exists already: write it without the +."
    if match := re.match(
        r"(?:Multiple values for|force-add of config groups is not)[^']*'\W*([\w/@ ]+)[:=](.*)'", text
    ):
        group, option = match[1].removeprefix("override "), match[2].strip()
        return (
            f"{group} has an option already: write {group}={option} on the command line, or "
            f"`- override /{group}: {option}` in a list of defaults."
        )
    if text.startswith("Error merging override ") and error.__cause__:
        return f"{text.removeprefix('Error merging override ')} is refused: {one_line(error.__cause__)}"
    return text


def nearest(wanted: str, names: Sequence[str]) -> str:
    """Return a sentence that suggests similar names, or lists all if none is similar and they are few."""
    leaf = wanted.rpartition(".")[2]
    # By the last part only: in the same section, whole names are always similar.
    by_leaf: dict[str, list[str]] = {}
    for name in names:
        by_leaf.setdefault(name.rpartition(".")[2], []).append(name)
    near = [
        name
        for last in by_leaf
        if leaf == "".join(word[0] for word in last.split("_"))
        for name in by_leaf[last]
    ]
    for match in difflib.get_close_matches(leaf, by_leaf, n=2, cutoff=0.65):
        near += by_leaf[match]
    near = list(dict.fromkeys(near))
    if near:
        return " Did you mean " + " or ".join(near[:3]) + "?"
    return f" Available: {', '.join(names)}." if names and len(names) < 30 else ""


def one_line(error: BaseException) -> str:
    """Return the message of an exception of OmegaConf or Hydra in one line, without its details."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(line for line in lines if not line.startswith("object_type="))
