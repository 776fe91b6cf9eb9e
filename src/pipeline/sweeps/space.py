"""The space of a search: Optuna's distributions, written in Hydra's grammar on the command line."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pipeline.config.compose import compose_each
from pipeline.config.schema import Composed, SweepSection
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
Space = Mapping[str, Distribution]

_EXAMPLE = "'train.learning_rate=tag(log, interval(0.0001, 0.1))'"
_MOST_COMBINATIONS = 100_000


def space_of(overrides: Sequence["Override"], settings: SweepSection) -> Space:
    """Return the distributions that the swept overrides describe, by key.

    Raises:
        PipelineError: If there are none, or one can't be searched.
    """
    swept = [override for override in overrides if override.is_sweep_override()]
    if not swept:
        raise PipelineError(f"A search needs something to search: a list, or an interval such as {_EXAMPLE}.")
    space: dict[str, Distribution] = {}
    for override in swept:
        if override.key_or_group.partition(".")[0] == "sweep":
            raise PipelineError(
                f"{override.input_line} is a setting of the search itself: give it one value."
            )
        space[override.get_key_element()] = _distribution(override, settings)
    if settings.sampler == "grid" and combinations(space) > _MOST_COMBINATIONS:
        raise PipelineError(
            f"The space has {combinations(space):,} combinations, and sweep.sampler=grid takes up to "
            f"{_MOST_COMBINATIONS:,}: tpe and random take any number."
        )
    return space


def _distribution(override: "Override", settings: SweepSection) -> Distribution:
    from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep

    values, text = override.value(), override.input_line
    if isinstance(values, ChoiceSweep):
        return CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator())))
    if isinstance(values, RangeSweep) and not values.tags:
        return _steps(values, str(text))
    if isinstance(values, IntervalSweep):
        if settings.sampler == "grid":
            raise PipelineError(
                f"{text} names an interval, and sweep.sampler=grid needs values: list them, or take "
                "sweep.sampler=tpe."
            )
        return _interval(values, str(text))
    raise PipelineError(f"{text} can't be searched: list the values, or name a range or an interval.")


def _steps(values: "RangeSweep", text: str) -> Distribution:
    assert values.start is not None
    count = sum(1 for _ in values.range()) if values.step else 0
    if not count:
        raise PipelineError(f"{text} names no value.")
    # Optuna counts steps in decimals, and includes both ends.
    last = _nth(values.start, values.step, count - 1)
    low, high = sorted((values.start, last))
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, step=int(abs(values.step)))
    return FloatDistribution(low, high, step=abs(values.step))


def _interval(values: "IntervalSweep", text: str) -> Distribution:
    if more := values.tags - {"log", "int"}:
        raise PipelineError(f"{text}: there is no tag {more.pop()}, only log and int.")
    low, high, is_log = values.start or 0, values.end or 0, "log" in values.tags
    is_int = "int" in values.tags or (isinstance(low, int) and isinstance(high, int))
    if math.isfinite(low) and math.isfinite(high) and is_int:
        low, high = math.ceil(low), math.floor(high)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise PipelineError(f"{text} is not an interval: the first bound must be below the second.")
    if is_log and low <= 0:
        raise PipelineError(f"{text}: a logarithmic interval needs bounds above 0.")
    if is_int:
        return IntDistribution(int(low), int(high), log=is_log)
    return FloatDistribution(low, high, log=is_log)


def _nth(start: float, step: float, number: int) -> float:
    """Return the value `number` steps from `start`, computed in decimals to avoid rounding errors."""
    value = Decimal(str(start)) + number * Decimal(str(step))
    return int(value) if isinstance(start, int) and isinstance(step, int) else float(value)


def combinations(space: Space) -> int:
    """Return the number of combinations of the values in lists and ranges."""
    return math.prod(map(_count, space.values()))


def combination(space: Space, number: int, seed: int) -> dict[str, Any]:
    """Return one of the combinations; the numbers from 0 on enumerate all in an order that `seed` decides."""
    rest, values = int(np.random.default_rng(seed).permutation(combinations(space))[number]), {}
    for key, distribution in space.items():
        rest, place = divmod(rest, _count(distribution))
        if isinstance(distribution, CategoricalDistribution):
            values[key] = distribution.choices[place]
        else:
            values[key] = _nth(distribution.low, distribution.step or 1, place)
    return values


def _count(distribution: Distribution) -> int:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    return round((distribution.high - distribution.low) / (distribution.step or 1)) + 1


def validate_space(conf: Path, base: Sequence[str], space: Space, settings: SweepSection) -> list[Composed]:
    """Compose with each bound and each listed value before anything starts, and return what they make.

    The first one has the first value of each key.

    Raises:
        PipelineError: If a value is invalid, or the results of the search could not be compared.
    """
    ends = {
        key: list(each.choices) if isinstance(each, CategoricalDistribution) else [each.low, each.high]
        for key, each in space.items()
    }
    first = {key: values[0] for key, values in ends.items()}
    tried = [first, *(first | {key: value} for key, values in ends.items() for value in values[1:])]
    texts = [[*base, *(f"{key}={value}" for key, value in chosen.items())] for chosen in tried]
    try:
        composed = list(compose_each(conf, texts))
    except PipelineError as error:
        hint = " Whole numbers are int(interval(1, 9))." if "valid integer" in str(error) else ""
        raise PipelineError(f"{error}{hint}") from None
    measured = [name for name in settings.objectives if name != "parameters"]
    if measured and any(config.preprocess.validation_fraction == 0 for config in composed):
        raise PipelineError(
            f"sweep.objectives asks for {measured[0]}, and there are no validation images: set "
            "preprocess.validation_fraction above 0. Test images are never used for a search."
        )
    if settings.pruner == "hyperband" and len({config.train.epochs for config in composed}) > 1:
        raise PipelineError(
            "sweep.pruner=hyperband compares trainings of equally many epochs: give train.epochs one value, "
            "or take sweep.pruner=median."
        )
    return composed
