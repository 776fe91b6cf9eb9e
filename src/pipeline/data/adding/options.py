"""What is typed after `pipeline add-data`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from pipeline.config.schema import DataSection
from pipeline.config.section import ReaderSection
from pipeline.data.batches import LocalSource
from pipeline.errors import PipelineError

_OURS = LocalSource.model_fields.keys() - {"unreadable"}  # found by looking, and pinned


@dataclass(frozen=True)
class AddOptions:
    """What was typed; None: nothing."""

    path: str
    name: str | None = None
    image_size: str | None = None
    colour: str | None = None
    resize: str | None = None
    test_fraction: float | None = None
    settings: tuple[str, ...] = ()
    force: bool = False
    update: bool = False


def reader_of(options: AddOptions) -> dict[str, Any]:
    """What the options say of the reader.

    Raises:
        PipelineError: an option has no value of its kind.
    """
    wished: dict[str, Any] = {}
    if options.image_size is not None:
        match = re.fullmatch(r"([1-9]\d{0,3})(?:[x×]([1-9]\d{0,3}))?", options.image_size)
        if not match:
            raise PipelineError(
                f"--image-size {options.image_size} is no size: write height and width in pixels, as in 64x64"
            )
        wished["image_size"] = [int(match[1]), int(match[2] or match[1])]
    for key in ("colour", "resize"):
        value = getattr(options, key)
        if value is not None:
            allowed = get_args(ReaderSection.model_fields[key].annotation)
            if value not in allowed:
                raise PipelineError(f"--{key} is {value!r}: should be {' or '.join(allowed)}")
            wished[key] = value
    return wished


def settings_of(options: AddOptions, values: Mapping[str, Any]) -> dict[str, Any]:
    """What `--set` says of the source, by key.

    Args:
        options: what was typed.
        values: of the file in conf/data.

    Raises:
        PipelineError: it is no KEY=VALUE, or such a source has no such key or value.
    """
    source = values["sources"][0]
    settings: dict[str, Any] = {}
    for typed in options.settings:
        key, is_pair, value = typed.partition("=")
        if not is_pair or key in _OURS:
            raise PipelineError(f"--set {typed}: write a setting of the source, as in label_column=breed")
        try:
            settings[key] = yaml.load(value, Loader=yaml.CSafeLoader)
            DataSection.model_validate({**values, "sources": [{**source, key: settings[key]}]})
        except yaml.YAMLError:
            raise PipelineError(f"--set {typed}: {value} is no YAML") from None
        except ValidationError as error:
            fault = error.errors()[0]
            unknown = f"a source of the kind {source['kind']} has no such setting"
            why = unknown if fault["type"] == "extra_forbidden" else fault["msg"]
            raise PipelineError(f"--set {typed}: {why}") from None
    return settings
