"""Hydra's overrides, KEY=VALUE, as the command line has them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override


def parse(overrides: Sequence[str], loader: "ConfigLoader | None" = None) -> list["Override"]:
    """Parse overrides of Hydra's grammar.

    Args:
        overrides: such as `train.epochs=3`.
        loader: knows the files of the groups, for `glob(*)`.

    Raises:
        PipelineError: one is malformed, or names an import path.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    for text in overrides:
        if "_target_" in text:
            raise PipelineError(f"{text} is refused: all options are chosen by name, none by _target_.")
    try:
        parsed: list[Override] = OverridesParser.create(loader).parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise PipelineError(_malformed(str(error.override))) from None
    if nameless := [part for part in parsed if not part.key_or_group]:
        raise PipelineError(_malformed(str(nameless[0].input_line)))
    return parsed


def first_values(overrides: Sequence["Override"]) -> list[str]:
    """The overrides of one trial of a sweep: the first value of a list or a range, and none of an interval.

    Raises:
        PipelineError: a list or a range has no value.
    """
    from hydra.core.override_parser.types import ChoiceSweep, RangeSweep

    values = []
    for override in overrides:
        if not override.is_sweep_override():
            values.append(str(override.input_line))
        elif isinstance(override.value(), ChoiceSweep | RangeSweep):
            value = next(override.sweep_string_iterator(), None)
            if value is None:
                raise PipelineError(f"{override.input_line} names no value.")
            values.append(f"{override.get_key_element()}={value}")
    return values


def refuse_several_values(overrides: Sequence["Override"]) -> None:
    """Refuse a sweep's values where one value is needed.

    Raises:
        PipelineError: an override names several values.
    """
    for override in overrides:
        if override.is_sweep_override():
            raise PipelineError(
                f"{override.input_line} names several values: add -m to try each of them; a list is written "
                "[a,b], and a decimal fraction with a point."
            )


def _malformed(text: str) -> str:
    if "=" not in text.strip("="):
        return f"{text!r} is no override: write KEY=VALUE without spaces, such as train.epochs=3."
    return (
        f"{text!r} can't be read: write KEY=VALUE, such as train.epochs=3. A value with other characters "
        "than plain letters, digits and -+.:%/ needs quotes of its own, as in name='\"Ziffern-ä\"', and each "
        "bracket and quote its other half."
    )
