"""What YAML in conf/ must not hold and OmegaConf would accept: it is refused before anything loads it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.section import leaves
from pipeline.errors import PipelineError

_MAX_NODES = 10_000
_MAX_DEPTH = 50
_PLAIN = {  # YAML 1.1 takes 010 for eight, 1:30 for ninety and on for true; YAML 1.2, and people, do not.
    "tag:yaml.org,2002:int": r"[-+]?(0|[1-9][0-9_]*)",
    "tag:yaml.org,2002:float": r"[^:]*",
    "tag:yaml.org,2002:bool": r"(?i:true|false)",
}


def refuse_unsafe_yaml(conf: Path) -> None:
    """Look through every YAML file below `conf` before anything loads it.

    Raises:
        PipelineError: a file has a `_target_`, a syntax error, a value from the environment, a number or a
            truth value that YAML 1.1 and 1.2 read differently, 50 levels, or aliases that expand to more than
            10,000 nodes.
    """
    if not (conf / "config.yaml").is_file():
        raise PipelineError(f"There is no {conf / 'config.yaml'}: run this in a clone of the project.")
    for path in yaml_files(conf):
        try:
            text = path.read_text(encoding="utf-8")
            _refuse_depth(text, path)
            root = yaml.compose(text, Loader=yaml.CSafeLoader)
            if root is not None:
                _check_node(root, path, {})
            values = yaml.load(text, Loader=yaml.CBaseLoader)  # noqa: S506 (it makes texts only)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise PipelineError(f"{path} is not valid YAML: {error}") from None
        # Hydra's own settings are not part of what is written or shown.
        if isinstance(values, dict) and path.relative_to(conf).parts[0] != "hydra":
            refuse_resolvers({key: value for key, value in values.items() if key != "hydra"})


def yaml_files(conf: Path) -> Iterator[Path]:
    """The files below `conf` that Hydra may load; an editor's lock, a link that leads nowhere, is none."""
    return (path for path in sorted(conf.rglob("*.yaml")) if path.exists())


def _refuse_depth(text: str, path: Path) -> None:
    """libyaml crashes on deep nesting once it builds nodes; its events are safe to count."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise PipelineError(f"{path} is refused: it is nested more than {_MAX_DEPTH} levels deep.")


def _check_node(node: yaml.Node, path: Path, sizes: dict[int, int]) -> int:
    """The number of nodes that `node` expands to; each anchored node is visited once."""
    if id(node) in sizes:
        return sizes[id(node)]
    sizes[id(node)] = _MAX_NODES  # An alias to its own parent never ends.
    line = f"{path}, line {node.start_mark.line + 1}"
    size = 1
    if isinstance(node, yaml.ScalarNode):
        if not node.style and not re.fullmatch(_PLAIN.get(node.tag, r"(?s:.*)"), node.value):
            raise PipelineError(
                f"{line}: {node.value} reads as {yaml.safe_load(node.value)} in YAML 1.1: write that, or put "
                "quotes around it if it is a text."
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


def refuse_resolvers(values: Any) -> None:
    """Values computed from the environment would carry secrets into params.yaml and MLflow."""
    for key, value in leaves(values):
        if "${" in re.sub(r"\$\{[\w.\[\]]+\}", "", str(value)):
            raise PipelineError(
                f"{key} is {value}: only references to other keys (${{a.b}}) may stand in conf/, since "
                "params.yaml and MLflow show every value. Tools read secrets from the environment."
            )
