"""The Hydra application: `python -m pipeline [overrides]`, `-m` for a sweep, `--help`, `--cfg job`.

Each run is a trial in its own workspace, which shares the DVC cache; the repository's files stay unchanged.
Sweeps are run by `pipeline.sweeps`.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts.workspace import Workspace, here
from pipeline.console import percent, say
from pipeline.environment import prepare_environment
from pipeline.errors import PipelineError, exit_on_error, explain

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from pipeline.trials.outcome import Outcome

# Hydra's own completion scripts support `python FILE` and executables, but not `python -m`.
# In bash, _pipeline_completion is the function with which `pipeline --show-completion` completes.
_COMPLETION = {
    "bash": r"""
_python_m_pipeline() {
    local typed=${COMP_LINE:0:COMP_POINT} words
    [[ $typed =~ ^[^\ ]*python[0-9.]*\ +-m\ +pipeline\ +(.*)$ ]] || return
    words="pipeline ${BASH_REMATCH[1]}"
    COMPREPLY=($(compgen -o nospace -o default -W "$(
        COMP_LINE=$words COMP_POINT=${#words} python -m pipeline -sc query=bash 2>/dev/null
    )" -- "${typed##* }"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _python_m_pipeline python python3
""",
    "zsh": r"""
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
_python_m_pipeline() {
    if [[ ${words[2]} == -m && ${words[3]} == pipeline ]] && (( CURRENT > 3 )); then
        local line="pipeline ${(j: :)words[4,CURRENT-1]} $PREFIX"
        compadd -S '' -- ${=$(COMP_LINE=$line python -m pipeline -sc query=zsh 2>/dev/null)} || _files
    else
        _python "$@"
    fi
}
compdef _python_m_pipeline python python3
""",
    "fish": r"""
function _typed_python_m_pipeline
    string match -rq '^\S+ +-m +pipeline ' -- (commandline -cp)
end
function _python_m_pipeline
    set -lx COMP_LINE (string replace -r '^\S+ +-m +' '' -- (commandline -cp))
    python -m pipeline -sc query=fish 2>/dev/null
end
for program in python python3
    complete -c $program -n _typed_python_m_pipeline -f -a '(_python_m_pipeline)'
end
""",
}


def main() -> None:
    """Check the command line, reporting a mistake in one sentence, and hand it to Hydra."""
    with exit_on_error():
        repository = here()
        repository.refuse_foreign_environment(Path.cwd())
        repository.refuse_copy()
        prepare_environment(repository.scratch / "home")
        conf = repository.root / "conf"
        # Relative paths in overrides and in Hydra's own settings are relative to the repository.
        os.chdir(repository.root)
        for shell, script in _COMPLETION.items():
            if f"install={shell}" in sys.argv:
                print(script)
                return
        _check(conf, sys.argv[1:])
        failures = _hydra_application(repository, conf)
        if failures:
            sys.exit(1)


def _check(conf: Path, arguments: list[str]) -> None:
    """Refuse invalid values, and arguments that would make Hydra print a traceback."""
    from hydra._internal.utils import get_args_parser

    from pipeline.config.compose import compose, plain, unresolved
    from pipeline.config.overrides import first_values, parse
    from pipeline.config.unsafe_yaml import refuse_unsafe_yaml

    parser = get_args_parser()
    parser.prog = "python -m pipeline"
    options = parser.parse_args(arguments)
    commands = [
        f"--{name.replace('_', '-')}"
        for name in ("run", "multirun", "cfg", "info", "shell_completion")
        if getattr(options, name)
    ]
    if len(commands) > 1:
        raise PipelineError(f"{' and '.join(commands)} cannot be combined.")
    if options.resolve and not (options.cfg or options.help):
        raise PipelineError("--resolve needs --cfg.")
    if options.package and not options.cfg:
        raise PipelineError("--package needs --cfg.")
    if options.experimental_rerun:  # argparse also takes --experiment for it
        raise PipelineError(
            "--experimental-rerun needs files that Hydra does not write here: repeat the run's command "
            "instead. To select an experiment, write experiment=NAME."
        )
    if options.config_path or options.config_name:
        raise PipelineError(
            "--config-path and --config-name are refused: the configuration is conf/config.yaml. "
            "--config-dir adds a folder with more options, such as experiment/NAME.yaml."
        )
    if options.hydra_help or options.shell_completion:
        refuse_unsafe_yaml(conf)
        return
    searched = (
        [f"hydra.searchpath=[file://{Path(options.config_dir).resolve()}]"] if options.config_dir else []
    )
    parsed = parse([*searched, *options.overrides])
    if options.help or options.cfg or options.info:
        # What is invalid, but can be shown, is shown: that is how to find out where it comes from.
        plain(unresolved(conf, [*searched, *options.overrides]))
    elif options.multirun or "hydra.mode=MULTIRUN" in options.overrides:
        if any(part.key_or_group == "hydra.searchpath" for part in parse(options.overrides)):
            raise PipelineError("With -m, name the folder with --config-dir instead of hydra.searchpath.")
        # The sweeper validates each trial; the first values of all lists need not make a valid one.
        unresolved(conf, first_values(parsed))
    else:
        compose(conf, [*searched, *options.overrides])
        # If this folder can't be created, as in another user's clone, Hydra would print a traceback.
        (Workspace(conf.parent).scratch / "hydra").mkdir(parents=True, exist_ok=True)


def _hydra_application(repository: Workspace, conf: Path) -> int:
    """Let Hydra run the command line, and return the number of failed trials."""
    import hydra

    failures = 0

    def run(composed: "DictConfig") -> None:
        nonlocal failures
        from pipeline.config.compose import from_hydra
        from pipeline.trials.outcome import Outcome
        from pipeline.trials.trial import run_trial

        try:
            config = from_hydra(composed).trial
            with run_trial(config, repository) as trial:
                say(_summary(Outcome.read(trial.run, trial.history), trial))
        except Exception as error:
            # Hydra would print a traceback if this were raised.
            if (sentence := explain(error)) is None:
                raise
            print(f"error: {sentence}", file=sys.stderr)
            failures += 1

    hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(run)()
    return failures


def _summary(outcome: "Outcome", trial: Workspace) -> str:
    from pipeline.results.compare import accuracy_text

    best, metrics = outcome.best, json.loads(trial.metrics.read_text(encoding="utf-8"))
    validation = f"validation {percent(best.val_accuracy)}, " if best.val_accuracy is not None else ""
    test = accuracy_text(*(metrics[f"test_accuracy{end}"] for end in ("", "_low", "_high")))
    return (
        f"Training accuracy {percent(best.train_accuracy)}, {validation}test {test}, "
        f"weights {outcome.weights_sha256[:12]}"
    )


if __name__ == "__main__":
    main()
