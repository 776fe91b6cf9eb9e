"""Plan the trials of a sweep, composed and validated before any of them starts."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.compose import compose_each
from pipeline.config.overrides import parse as parse_overrides
from pipeline.config.schema import Config
from pipeline.errors import PipelineError
from pipeline.results.report import Trial
from pipeline.trials.outcome import key_of

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override


def grid(conf: Path, overrides: Sequence["Override"]) -> tuple[list[Trial], dict[str, Config]]:
    """Return a trial for every combination of the values in `overrides`, each configuration once.

    Returns:
        The trials, and their configurations by the keys of the trials.

    Raises:
        PipelineError: If a value is invalid, or can't be enumerated.
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
    configs: dict[str, Config] = {}
    for chosen, composition in zip(combinations, composed, strict=True):
        key = key_of(composition.trial)
        if key not in trials:
            texts = tuple(f"{name}={value}" for name, value in chosen)
            differs = {name: value for name, value in chosen if name in swept}
            trials[key] = Trial(len(trials) + 1, key, texts, differs)
            configs[key] = composition.trial
    return list(trials.values()), configs


def parse(
    arguments: Sequence[str], params: Mapping[str, object], loader: "ConfigLoader | None" = None
) -> list["Override"]:
    """Parse the overrides of the command line, and those of `params` whose keys it does not set itself.

    Args:
        arguments: the overrides of the command line.
        params: by key, the values or the text that names them.
        loader: Hydra's loader, which knows the files of the groups, for `glob(*)`.

    Raises:
        PipelineError: If an override is malformed, or sweeps over a key that does not change the training.
    """
    given = parse_overrides(arguments, loader)
    keys = {override.key_or_group for override in given}
    more = [f"{key}={value}" for key, value in params.items() if key not in keys]
    overrides = [*given, *parse_overrides(more, loader)]
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override() and (key == "name" or key.partition(".")[0] == "tracking"):
            raise PipelineError(
                f"{override.input_line} sweeps over {key}, which does not change the training: all trials "
                "would be one run. Sweep over another key, or set this one to a single value."
            )
    return overrides
