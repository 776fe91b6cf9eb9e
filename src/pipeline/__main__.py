"""The Hydra application: `python -m pipeline [overrides]`, `-m` for a sweep, `--help`, `--cfg job`.

Each run is a trial: a workspace of its own that shares the DVC cache; the repository's stays as it is.
A sweep is in the hands of `pipeline.sweeps`.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts.workspace import Workspace, here
from pipeline.config.compose import compose, from_hydra
from pipeline.config.unsafe_yaml import refuse_unsafe_yaml
from pipeline.console import say
from pipeline.errors import PipelineError, sentences

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from pipeline.trials.trial import Outcome

# With these Hydra only shows something, or reads another conf/.
_NO_TRIAL = {
    "--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc",
    "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
}  # fmt: skip

# Hydra's own script knows `python FILE` and an executable, not `python -m`.
_BASH_COMPLETION = r"""
_pipeline_completion() {
    local typed=${COMP_LINE:0:COMP_POINT} words
    [[ $typed =~ ^[^\ ]*python[0-9.]*\ +-m\ +pipeline\ +(.*)$ ]] || return
    words="pipeline ${BASH_REMATCH[1]}"
    COMPREPLY=($(compgen -o nospace -o default -W "$(
        COMP_LINE=$words COMP_POINT=${#words} python -m pipeline -sc query=bash 2>/dev/null
    )" -- "${typed##* }"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _pipeline_completion python python3
"""


def main() -> None:
    """Hand the command line to Hydra, after a check that says what is wrong in one sentence."""
    with sentences():
        repository = here()
        repository.refuse_foreign_environment(Path.cwd())
        conf = repository.root / "conf"
        # Relative paths in overrides and in Hydra's own settings are relative to the repository.
        os.chdir(repository.root)
        arguments = sys.argv[1:]
        if "install=bash" in arguments:
            print(_BASH_COMPLETION)
            return
        if _NO_TRIAL.isdisjoint(argument.partition("=")[0] for argument in arguments):
            compose(conf, _first_values([argument for argument in arguments if not argument.startswith("-")]))
        else:
            refuse_unsafe_yaml(conf)
        failures = _hydra_application(repository, conf)
        if failures:
            sys.exit(1)


def _hydra_application(repository: Workspace, conf: Path) -> int:
    """Run what Hydra makes of the command line; the number of trials that failed."""
    import hydra

    failures = 0

    def run(composed: "DictConfig") -> None:
        nonlocal failures
        from pipeline.trials.trial import Outcome, reproduced

        try:
            config = from_hydra(composed).trial
            with reproduced(config, repository) as trial:
                say(_summary(Outcome.read(trial.run, trial.history), trial))
        except PipelineError as error:
            # Raised through Hydra it would come out as a traceback.
            print(f"error: {error}", file=sys.stderr)
            failures += 1

    hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(run)()
    return failures


def _first_values(overrides: list[str]) -> list[str]:
    """`overrides` with each sweep reduced to its first value, so that its keys can be checked."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ChoiceSweep, RangeSweep
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise PipelineError(" ".join(str(error).split())) from None
    values = []
    for override in parsed:
        if not override.is_sweep_override():
            values.append(override.input_line or "")
        elif isinstance(override.value(), ChoiceSweep | RangeSweep):
            values.append(f"{override.key_or_group}={next(iter(override.sweep_string_iterator()))}")
    return values


def _summary(outcome: "Outcome", trial: Workspace) -> str:
    best, metrics = outcome.best, json.loads(trial.metrics.read_text(encoding="utf-8"))
    validation = f"validation {best.val_accuracy:.2%}, " if best.val_accuracy is not None else ""
    return (
        f"{outcome.run}: training {best.train_accuracy:.2%}, {validation}test {metrics['test_accuracy']:.2%} "
        f"({metrics['test_accuracy_low']:.2%} to {metrics['test_accuracy_high']:.2%}), "
        f"weights {outcome.weights_sha256[:12]}"
    )


if __name__ == "__main__":
    main()
