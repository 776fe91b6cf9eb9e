"""The plan of a sweep: its trials, composed and validated before any of them starts."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.compose import compose_each
from pipeline.config.overrides import parse as parse_overrides
from pipeline.config.schema import Config
from pipeline.errors import PipelineError
from pipeline.trials.trial import key_of

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override


@dataclass(frozen=True)
class Trial:
    """One configuration of a sweep."""

    number: int  # from 1
    overrides: tuple[str, ...]
    differs: dict[str, str]  # the values that are swept over
    config: Config

    @cached_property  # The board asks for it twice a second, and it dumps the whole configuration.
    def key(self) -> str:
        """Names the trial's workspace and files."""
        return key_of(self.config)


def grid(conf: Path, overrides: Sequence["Override"]) -> list[Trial]:
    """Every combination of the values in `overrides`, each configuration once.

    Raises:
        PipelineError: a value is refused, or can't be enumerated.
    """
    spans: list[list[tuple[str, str]]] = []
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise PipelineError(
                f"{override.input_line} names a range, and a grid needs values: list them, or search with "
                "hydra/sweeper=optuna."
            )
        values = (
            list(override.sweep_string_iterator())
            if override.is_sweep_override()
            else [override.get_value_element_as_str()]
        )
        if not values:
            raise PipelineError(f"{override.input_line} names no value.")
        spans.append([(key, value) for value in values])
    swept = {override.get_key_element() for override in overrides if override.is_sweep_override()}
    combinations = list(itertools.product(*spans))
    composed = compose_each(conf, [[f"{key}={value}" for key, value in chosen] for chosen in combinations])
    trials: dict[str, Trial] = {}
    for chosen, found in zip(combinations, composed, strict=True):
        trial = Trial(
            len(trials) + 1,
            tuple(f"{key}={value}" for key, value in chosen),
            {key: value for key, value in chosen if key in swept},
            found.trial,
        )
        trials.setdefault(trial.key, trial)
    return list(trials.values())


def parse(
    arguments: Sequence[str], params: Mapping[str, object], loader: "ConfigLoader | None" = None
) -> list["Override"]:
    """The overrides of the command line, and those of `params`, by key, that it does not set itself.

    Args:
        arguments: the command line's.
        params: the values, or the text that names them, by key.
        loader: knows the groups' files, for `glob(*)`.

    Raises:
        PipelineError: one is malformed.
    """
    typed = parse_overrides(arguments, loader)
    known = {override.key_or_group for override in typed}
    more = [f"{key}={value}" for key, value in params.items() if key not in known]
    return [*typed, *parse_overrides(more, loader)]
