"""params.yaml: the composed configuration, as the stages read it and DVC watches it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from pipeline.config.messages import validate
from pipeline.config.schema import Config
from pipeline.errors import PipelineError

_HEADER = """\
# Composed from conf/ by the stage `compose`: edit conf/, not this file.
# For one run:  dvc exp run -S train.learning_rate=0.01   or   python -m pipeline train.learning_rate=0.01
# content: {digest}
"""


def dump(config: Config) -> str:
    """The text of params.yaml: a header with the content's digest, then every value, in schema order."""
    body = yaml.dump(
        config.model_dump(mode="json"),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )
    return _HEADER.format(digest=_digest(body)) + body


def read_params(path: Path) -> Config:
    """Read what `dump` wrote.

    Raises:
        PipelineError: the file is missing, malformed, or was edited by hand.
    """
    return validate(yaml.load(check_unedited(path), Loader=yaml.CSafeLoader), Config, where=path.name)


def check_unedited(path: Path) -> str:
    """The body of a params.yaml that is as `dump` wrote it.

    Raises:
        PipelineError: the file is missing or was edited by hand.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing: `dvc repro` composes it from conf/.") from None
    _, _, rest = text.partition("# content: ")
    digest, _, body = rest.partition("\n")
    if not body or digest != _digest(body):
        raise PipelineError(
            f"{path.name} was edited by hand, and composing conf/ again would lose the edit. Either put the "
            "value into conf/, or try it once with `python -m pipeline KEY=VALUE` or "
            "`dvc exp run -S KEY=VALUE`; then delete params.yaml and run `dvc repro`."
        )
    return body


def view(config: Config, keys: Sequence[str]) -> Config:
    """The part of `config` that lies under `keys` (dotted); reading any other key raises AttributeError.

    A stage is given the view that its `params:` in dvc.yaml declares, so it can't depend on a value
    that DVC does not watch.
    """
    tree: dict[str, Any] = {}
    for key in keys:
        branch = tree
        *parents, last = key.split(".")
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = None

    def prune(section: BaseModel, wanted: dict[str, Any]) -> BaseModel:
        kept: dict[str, Any] = {}
        for name, below in wanted.items():
            value = getattr(section, name)
            kept[name] = prune(value, below) if below else value
        return type(section).model_construct(**kept)

    pruned = prune(config, tree)
    assert isinstance(pruned, Config)
    return pruned


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, with floats that YAML 1.1 and 1.2 readers both take for floats."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    text = repr(value)
    mantissa, exponent_mark, exponent = text.partition("e")
    if exponent_mark and "." not in mantissa:
        text = f"{mantissa}.0e{exponent}"
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(float, _represent_float)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]
