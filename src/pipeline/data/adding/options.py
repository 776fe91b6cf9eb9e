"""The options of `pipeline add-data`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from pipeline.config.plain_yaml import load_yaml
from pipeline.config.schema import DataSection
from pipeline.config.section import ReaderSection
from pipeline.data.batches import LocalSource
from pipeline.errors import PipelineError

# Settings that add-data determines itself and pins.
_PINNED = LocalSource.model_fields.keys() - {"unreadable"}


@dataclass(frozen=True)
class AddOptions:
    """The options as given on the command line; None if an option was not given."""

    path: str
    name: str | None = None
    image_size: str | None = None
    colour: str | None = None
    resize: str | None = None
    test_fraction: float | None = None
    settings: tuple[str, ...] = ()
    force: bool = False
    update: bool = False

    def typed(self) -> list[str]:
        """Return the options that change what is pinned, as typed on a command line."""
        given = [
            ("--image-size", self.image_size),
            ("--colour", self.colour),
            ("--resize", self.resize),
            ("--test-fraction", self.test_fraction and f"{self.test_fraction:g}"),
            *(("--set", setting) for setting in self.settings),
        ]
        return [word for option, value in given if value is not None for word in (option, str(value))]


def reader_of(options: AddOptions) -> dict[str, Any]:
    """Return the options that are settings of the reader.

    Raises:
        PipelineError: If an option has an invalid value.
    """
    settings: dict[str, Any] = {}
    if options.image_size is not None:
        match = re.fullmatch(r"([1-9]\d{0,3})(?:[x×]([1-9]\d{0,3}))?", options.image_size)
        if not match:
            raise PipelineError(
                f"--image-size {options.image_size} is not a size: give height and width in pixels: 64x64"
            )
        settings["image_size"] = [int(match[1]), int(match[2] or match[1])]
    for key in ("colour", "resize"):
        value = getattr(options, key)
        if value is not None:
            allowed = get_args(ReaderSection.model_fields[key].annotation)
            if value not in allowed:
                raise PipelineError(f"--{key} is {value!r}: should be {' or '.join(allowed)}")
            settings[key] = value
    return settings


def settings_of(options: AddOptions, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the source that `--set` gives, by key.

    Raises:
        PipelineError: If one is not KEY=VALUE, or is not valid for this kind of source.
    """
    settings: dict[str, Any] = {}
    for setting in options.settings:
        key, is_pair, value = setting.partition("=")
        if not is_pair or key in _PINNED:
            raise PipelineError(f"--set {setting}: write a setting of the source, as in label_column=breed")
        try:
            settings[key] = load_yaml(value)
            faults = _faults(values, key, settings[key])
            if faults and faults[0]["type"] == "string_type":  # such as a column that is called 5
                settings[key] = value
                faults = _faults(values, key, value)
        except yaml.YAMLError:
            raise PipelineError(f"--set {setting}: {value} is not valid YAML") from None
        if faults:
            unknown = f"a source of kind {values['sources'][0]['kind']} has no such setting"
            why = str(faults[0]["msg"]).removeprefix("Value error, ")
            why = unknown if faults[0]["type"] == "extra_forbidden" else why
            raise PipelineError(f"--set {setting}: {why}")
    return settings


def _faults(values: Mapping[str, Any], key: str, value: Any) -> Sequence[Mapping[str, Any]]:
    """Return what is wrong with a value for a setting of the source."""
    try:
        DataSection.model_validate({**values, "sources": [{**values["sources"][0], key: value}]})
    except ValidationError as error:
        return error.errors()
    return []
