"""Parse and check Hydra's overrides, KEY=VALUE."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override


def parse(overrides: Sequence[str], loader: "ConfigLoader | None" = None) -> list["Override"]:
    """Parse overrides of Hydra's grammar.

    The loader of Hydra knows the files of the groups; `glob(*)` needs it.

    Raises:
        PipelineError: If an override is not a text, is malformed or names an import path.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import RangeSweep
    from hydra.errors import OverrideParseException

    for text in overrides:
        if not isinstance(text, str):  # In notebooks.
            raise PipelineError(
                f"{text!r} is not an override: pass each as a text of its own, such as 'train.epochs=3'."
            )
        if "_target_" in text:
            raise PipelineError(f"{text} is refused: all options are chosen by name, not by _target_.")
    try:
        parsed: list[Override] = OverridesParser.create(loader).parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise PipelineError(_malformed(str(error.override))) from None
    for part in parsed:
        values = part.value()
        if isinstance(values, RangeSweep) and not all(
            map(_is_finite, (values.start, values.stop, values.step))
        ):
            raise PipelineError(f"{part.input_line}: a range needs finite numbers.")
    if nameless := [part for part in parsed if not part.key_or_group]:
        raise PipelineError(_malformed(str(nameless[0].input_line)))
    return parsed


def _is_finite(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


def first_values(overrides: Sequence["Override"]) -> list[str]:
    """Return overrides for one trial of a sweep: the first value of each list or range; no intervals.

    Raises:
        PipelineError: If a list or a range is empty.
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
    """Refuse overrides with several values, which only a sweep may have."""
    for override in overrides:
        if override.is_sweep_override():
            raise PipelineError(
                f"{override.input_line} names several values: add -m to try each of them. Write a list as "
                "[a,b], and a decimal fraction with a point."
            )


def _malformed(text: str) -> str:
    if "=" not in text.strip("="):
        return f"{text!r} is not an override: write KEY=VALUE without spaces, such as train.epochs=3."
    return (
        f"{text!r} can't be read: write KEY=VALUE, such as train.epochs=3. A value with characters "
        "other than plain letters, digits and -+.:%/ needs its own quotes, as in name='\"Ziffern-ä\"', and "
        "each bracket and quote must be closed."
    )
