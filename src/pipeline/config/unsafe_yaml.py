"""Refuse unsafe or ambiguous YAML in conf/, which OmegaConf would accept, before anything loads it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.plain_yaml import load_yaml
from pipeline.config.section import leaves
from pipeline.errors import PipelineError

_MAX_NODES = 10_000
_MAX_DEPTH = 50
_PLAIN = {  # YAML 1.1 reads 010 as eight, 1:30 as ninety and on as true; YAML 1.2, and people, do not.
    "tag:yaml.org,2002:int": r"[-+]?(0|[1-9][0-9_]*)",
    "tag:yaml.org,2002:float": r"[^:]*",
    "tag:yaml.org,2002:bool": r"(?i:true|false)",
}


def refuse_unsafe_yaml(conf: Path) -> None:
    """Check every YAML file below `conf`.

    Raises:
        PipelineError: If a file has a `_target_`, a syntax error, a value from the environment, a number or a
            boolean that YAML 1.1 and 1.2 read differently, more than 50 levels, or aliases that expand to
            more than 10,000 nodes.
    """
    if not (conf / "config.yaml").is_file():
        raise PipelineError(f"There is no {conf / 'config.yaml'}: run this in a clone of the project.")
    for path in yaml_files(conf):
        try:
            text = path.read_text(encoding="utf-8")
            refuse_conflict(text, path)
            _refuse_depth(text, path)
            root = yaml.compose(text, Loader=yaml.CSafeLoader)
            if root is not None:
                _check_node(root, path, {})
            values = yaml.load(text, Loader=yaml.CBaseLoader)  # noqa: S506 (creates strings only)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise PipelineError(yaml_fault(error, path)) from None
        if not isinstance(values, dict | None):
            raise PipelineError(f"{path} should have keys with values, KEY: VALUE, and nothing else.")
        # Hydra's own settings are not part of what is written or shown.
        if isinstance(values, dict) and path.relative_to(conf).parts[0] != "hydra":
            refuse_resolvers({key: value for key, value in values.items() if key != "hydra"})


def yaml_fault(error: Exception, path: Path | None = None) -> str:
    """Return a sentence on what is wrong in a YAML file, and in which line if that is known.

    Without a path, the parser knows the name of the file.
    """
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    if not isinstance(error, yaml.MarkedYAMLError) or mark is None:
        return f"{path} is not valid YAML: {' '.join(str(error).split())}."
    return f"{path or mark.name} is not valid YAML: {error.problem} (line {mark.line + 1})."


def conflict_marker(text: str) -> int | None:
    """Return the number of the line that begins a conflict of git; None if there is none."""
    found = re.search(r"^[<>]{7} ", text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else None


def refuse_conflict(text: str, path: Path) -> None:
    """Refuse the text of a file that a merge left with conflicts to resolve by hand.

    Raises:
        PipelineError: If it has conflict markers.
    """
    if (line := conflict_marker(text)) is not None:
        raise PipelineError(
            f"{path} has conflict markers of git (line {line}): keep the lines that you want, and delete the "
            "others and the markers."
        )


def yaml_files(conf: Path) -> Iterator[Path]:
    """Return the files below `conf` that Hydra may load, without broken links such as an editor's lock."""
    return (path for path in sorted(conf.rglob("*.yaml")) if path.exists())


def _refuse_depth(text: str, path: Path) -> None:
    """Refuse deep nesting, on which libyaml crashes once it builds nodes; its events are safe to count."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise PipelineError(f"{path} is refused: it is nested more than {_MAX_DEPTH} levels deep.")


def _check_node(node: yaml.Node, path: Path, sizes: dict[int, int]) -> int:
    """Check a node, and return the number of nodes that it expands to; anchored nodes are visited once."""
    if id(node) in sizes:
        return sizes[id(node)]
    sizes[id(node)] = _MAX_NODES  # An alias to its own parent never ends.
    line = f"{path}, line {node.start_mark.line + 1}"
    size = 1
    if isinstance(node, yaml.ScalarNode):
        if not node.style and not re.fullmatch(_PLAIN.get(node.tag, r"(?s:.*)"), node.value):
            raise PipelineError(
                f"{line}: {node.value} reads as {_read(node)} in YAML 1.1: write that, or put quotes around "
                "it if it is text."
            )
    elif isinstance(node, yaml.MappingNode):
        if any(key.value == "_target_" for key, _ in node.value):
            raise PipelineError(f"{line}: _target_ is refused; models and sources are chosen by name.")
        size += sum(
            _check_node(key, path, sizes) + _check_node(value, path, sizes) for key, value in node.value
        )
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_check_node(item, path, sizes) for item in node.value)
    if size > _MAX_NODES:
        raise PipelineError(f"{line}: its aliases expand to over {_MAX_NODES} values.")
    sizes[id(node)] = size
    return size


def _read(node: yaml.ScalarNode) -> str:
    """Return what YAML 1.1 reads, as text."""
    try:
        return str(load_yaml(node.value))
    except (yaml.YAMLError, ValueError):  # Python writes no number of more than 4,300 digits.
        return "no number"


def refuse_resolvers(values: Any) -> None:
    """Refuse values from the environment, which could carry secrets into params.yaml and MLflow."""
    for key, value in leaves(values):
        if "${" in re.sub(r"\$\{[\w.\[\]]+\}", "", str(value)):
            raise PipelineError(
                f"{key} is {value}: only references to other keys (${{a.b}}) are allowed in conf/, since "
                "params.yaml and MLflow show every value. Tools read secrets from the environment."
            )
