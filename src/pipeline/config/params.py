"""params.yaml: the composed configuration, which the stages read and DVC watches."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from pipeline.config.messages import validate
from pipeline.config.plain_yaml import load_yaml
from pipeline.config.schema import Config
from pipeline.config.unsafe_yaml import conflict_marker
from pipeline.errors import PipelineError

_HEADER = """\
# Composed from conf/ by the stage `compose`: edit conf/, not this file.
# For one run:  dvc exp run -S train.learning_rate=0.01   or   python -m pipeline train.learning_rate=0.01
# content: {digest}
"""
_CONTENT = "# content: "
_EXPERIMENT = "# Of the DVC experiment {name}, whose values conf/ does not have.\n"
_BY_HAND = (
    "{name} was edited by hand, and composing conf/ again would lose the edit. Either put the value into "
    "conf/, or try it once with `python -m pipeline KEY=VALUE` or `dvc exp run -S KEY=VALUE`; then delete "
    "{name} and run `dvc repro`."
)
_IN_MERGE = (
    "{name} has conflict markers. Take either side, `git checkout --ours params.yaml dvc.lock`, and run "
    "`dvc repro`, which composes the present conf/."
)


def dump(config: Config, experiment: str | None = None) -> str:
    """Return the text of params.yaml: a header with the content's digest, then every value, in schema order.

    If the values of conf/ differ, `experiment` names the DVC experiment that they belong to.
    """
    head = _EXPERIMENT.format(name=experiment) if experiment else ""
    return head + dump_values(config.model_dump(mode="json"))


def dump_values(values: dict[str, Any]) -> str:
    """Return the text of params.yaml for plain values, which may follow another version of the schema."""
    body = _body(values)
    return _HEADER.format(digest=_digest(body)) + body


def experiment_of(path: Path) -> str | None:
    """Return the name of the DVC experiment that `dump` recorded, or None if it recorded none."""
    before, after = _EXPERIMENT.split("{name}")
    first = _lenient_text(path).partition("\n")[0] + "\n"
    return first.removeprefix(before).removesuffix(after) if first.startswith(before) else None


def read_params(path: Path) -> Config:
    """Read what `dump` wrote.

    Raises:
        PipelineError: If the file is missing or malformed, or was edited by hand.
    """
    values = unedited_values(path)
    try:
        return validate(values, Config, where=path.name)
    except PipelineError as error:
        # It is as it was composed, so it was composed with another version of the schema.
        raise PipelineError(f"{error}\n`dvc repro compose` composes {path.name} again.") from None


def unedited_values(path: Path) -> dict[str, Any]:
    """Return the values of a params.yaml if they are those that `dump` wrote, even if it was reformatted.

    Raises:
        PipelineError: If the file is missing, or a value was edited by hand.
    """
    try:
        text = _lenient_text(path)
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing: `dvc repro` composes it from conf/.") from None
    _refuse_merge(text, path.name)
    _, _, rest = text.partition(_CONTENT)
    digest, _, body = rest.partition("\n")
    try:
        values = load_yaml(body)
    except yaml.YAMLError:
        values = None
    if not isinstance(values, dict) or digest not in (_digest(body), _digest(_body(values))):
        raise PipelineError(_BY_HAND.format(name=path.name))
    return values


def read_generated(path: Path) -> dict[str, Any]:
    """Read a params.yaml or dvc.lock as `parse_generated` does.

    Raises:
        PipelineError: If the file is missing or can't be read, or as in `parse_generated`.
    """
    try:
        return parse_generated(path.read_text(encoding="utf-8"), path.name)
    except FileNotFoundError:
        raise PipelineError(
            f"{path} is missing: `git checkout {path.name}` or `dvc repro` restores it."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(
            f"{path} can't be read ({error}): `git checkout {path.name}` restores it."
        ) from None


def parse_generated(text: str, name: str) -> dict[str, Any]:
    """Parse the text of a params.yaml or dvc.lock called `name`, whether or not it was edited by hand.

    Raises:
        PipelineError: If a merge left conflict markers in it, or it is not a mapping in YAML.
    """
    _refuse_merge(text, name)
    try:
        values = load_yaml(text)
        if not isinstance(values, dict):
            raise TypeError("it is not a mapping")  # noqa: TRY301
        if name == "dvc.lock" and not _is_lock(values):
            raise TypeError("it is not as DVC writes it")  # noqa: TRY301
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise PipelineError(f"{name} can't be read ({error}): `git checkout {name}` restores it.") from None
    return values


def _is_lock(values: dict[str, Any]) -> bool:
    """Return whether what is read from dvc.lock is there, as far as it is filled in."""
    stages = values.get("stages", {})
    return isinstance(stages, dict) and all(
        isinstance(stage, dict)
        and all(isinstance(section, dict) for section in stage.get("params", {}).values())
        and all("path" in dependency for dependency in stage.get("deps", []))
        and all("path" in out and isinstance(out["md5"], str) for out in stage.get("outs", []))
        for stage in stages.values()
    )


def _refuse_merge(text: str, name: str) -> None:
    if conflict_marker(text):
        raise PipelineError(_IN_MERGE.format(name=name))


def _lenient_text(path: Path) -> str:
    """Read a params.yaml, of which bytes that are not UTF-8 are an edit like any other."""
    return path.read_text(encoding="utf-8", errors="replace")


def refuse_edited(path: Path) -> None:
    """Refuse a manual edit, which writing params.yaml would lose; a file of DVC has no header to check."""
    if path.exists() and _CONTENT in _lenient_text(path):
        unedited_values(path)


def view(config: Config, keys: Sequence[str]) -> Config:
    """Return the part of `config` under the dotted `keys`; reading any other key raises AttributeError.

    A stage gets the view that its `params:` in dvc.yaml declare, so it cannot depend on a value that DVC
    does not watch.
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


def _body(values: dict[str, Any]) -> str:
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, with floats that readers of both YAML 1.1 and 1.2 read as floats."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    """Quote text that readers of YAML 1.2, such as DVC's, would read as a number."""
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", value, style="'" if _reads_as_number(value) else None
    )


def _reads_as_number(text: str) -> bool:
    for number in (float, lambda digits: int(digits, 0)):
        try:
            number(text)
        except ValueError:
            continue
        return True
    return False


_Dumper.add_representer(str, _represent_text)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]
