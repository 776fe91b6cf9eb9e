"""Turn a run into an experiment: a short file in conf/ that composes to the configuration of the run."""

import math
import re
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.config.compose import complete, compose, unresolved, with_device
from pipeline.config.messages import refused_by_hydra, validate
from pipeline.config.modules import modules_in_use
from pipeline.config.params import dump
from pipeline.config.plain_yaml import load_yaml
from pipeline.config.schema import Config, Modules
from pipeline.config.section import leaves
from pipeline.console import percent
from pipeline.errors import PipelineError
from pipeline.results.download import find_training
from pipeline.results.leaderboard import label_of, text_of
from pipeline.results.report import Report, Trial, reports
from pipeline.trials.outcome import key_of, outcome_of
from pipeline.trials.run_cache import RunCache

# Groups that are not part of a trial's configuration, or whose option the experiment itself chooses.
_NOT_CHOSEN = ("sweep", "experiment", "local")


@dataclass(frozen=True)
class _Source:
    """The run that an experiment is written from."""

    run: str  # its name in MLflow
    run_id: str | None  # the pipeline's id of it
    config: Config
    overrides: tuple[str, ...]  # with which conf/ composes to `config`, apart from single values
    result: str  # what it reached, in a few words
    origin: tuple[str, ...]  # lines that say where it comes from


def adopt(run: str, repository: Workspace, name: str | None = None, force: bool = False) -> list[str]:
    """Write conf/experiment/NAME.yaml from a run, and return lines that say so and how to use it.

    The run is a trial of a sweep in this repository, or any training in MLflow. Without a name, the
    experiment's is made from the configuration's name and the run's id.

    Raises:
        PipelineError: If there is no such run, conf/ can't compose to its configuration, or the file exists.
    """
    if not run.strip():
        raise PipelineError("The name of the run is empty.")
    conf = repository.root / "conf"
    source = _of_sweep(run, repository) or _of_mlflow(run, repository)
    config = source.config
    # Hydra takes no other letters.
    name = name or re.sub(r"\W+", "-", f"{config.name}-{str(source.run_id)[:4]}", flags=re.ASCII).lstrip("-")
    if not re.fullmatch(r"\w[\w-]*", name, re.ASCII) or not _reads_as_text(name):
        raise PipelineError(
            f"{name!r} is not a name for an experiment: use the letters a to z, digits, _ and -, and no word "
            "that YAML reads as something else, such as on or 010."
        )
    place = conf / "experiment" / f"{name}.yaml"
    if place.exists() and not force:
        raise PipelineError(f"{place} exists: choose another --name, or overwrite it with --force.")
    text = _text(name, source, conf)
    _check(text, name, config, conf)
    write_text(place, text)
    restores = _trained(config, repository) == source.run_id
    return [
        f"Wrote conf/experiment/{name}.yaml: {source.result}.",
        f"Permanently: set `experiment: {name}` in conf/config.yaml and run `dvc repro`, which "
        f"{'restores it' if restores else 'trains it with the code as it is now'}.",
        f"Only this time: python -m pipeline experiment={name}",
    ]


def _reads_as_text(name: str) -> bool:
    with suppress(ValueError):
        float(name)  # such as 1e5, a text in YAML and a number for Hydra
        return False
    try:
        return isinstance(load_yaml(name), str)
    except yaml.YAMLError:  # a date that does not exist
        return False


def _of_sweep(run: str, repository: Workspace) -> _Source | None:
    """Find the trial with that run in the latest sweep that has it; return None if no sweep does."""
    candidates: dict[str | None, tuple[Report, Trial]] = {}
    for _, report in reports(repository):
        for trial in report.trials:
            if trial.has_result:
                candidates.setdefault(trial.run_id, (report, trial))
    found = list(candidates.values())
    matches = [match for match in found if run in _names(match[1])]
    matches = matches or [match for match in found if any(name.startswith(run) for name in _names(match[1]))]
    if not matches:
        return None
    if len(matches) > 1:
        named = ", ".join(f"{trial.run} ({trial.run_id})" for _, trial in matches[:5])
        raise PipelineError(f"{run!r} may be any of {len(matches)} runs: {named}.")
    [(report, trial)] = matches
    config = compose(repository.root / "conf", trial.overrides)
    if key_of(config) != trial.key and _trained(config, repository) != trial.run_id:
        raise PipelineError(
            f"conf/ or the code has changed since the sweep {report.name}: the values of {trial.run} now "
            "make another training. Run the sweep's command again, which trains or restores it, and adopt "
            "from that."
        )
    reached = [f"{key} {text_of(key, trial.values[key])}" for key in report.objectives if key in trial.values]
    return _Source(
        str(trial.run),
        trial.run_id,
        config,
        trial.overrides,
        f"{', '.join(reached)} with {label_of(trial.differs)}",
        (
            f"Trial {trial.number} of {len(report.trials)} in {report.name}, {trial.run}:",
            f"  python -m pipeline -m {shlex.join(report.command)}",
        ),
    )


def _names(trial: Trial) -> tuple[str, str]:
    return str(trial.run), str(trial.run_id)


def _of_mlflow(run: str, repository: Workspace) -> _Source:
    """Find a training in MLflow; if it is a trial of a sweep under another name, return that trial."""
    conf = repository.root / "conf"
    training = find_training(run, compose(conf).tracking, repository)
    if trial := _of_sweep(training.id, repository):
        return trial
    try:
        config = validate(training.values, Config, where=f"The configuration of {training.name}")
    except PipelineError as error:
        raise PipelineError(
            f"{training.name} was trained with other settings than there are now: {error}"
        ) from None
    reached = {"validation accuracy": "best_val_accuracy", "test accuracy": "test_accuracy"}
    result = [
        f"{what} {percent(training.metrics[key])}" for what, key in reached.items() if key in training.metrics
    ]
    overrides = tuple(f"{group}={_nearest(group, config, conf)}" for group in ("data", "model"))
    # The code is not part of an experiment.
    modules = Modules(**modules_in_use(config.model_dump(mode="json")))
    config = config.model_copy(update={"modules": modules})
    return _Source(
        training.name,
        training.id,
        config,
        overrides,
        ", ".join(result) or "no result yet",
        (f"The values of the run {training.name}.",),
    )


def _nearest(group: str, config: Config, conf: Path) -> str:
    """Return the option of a group whose values are closest to those of `config`."""
    wanted = set(map(repr, leaves(config.model_dump(mode="json")[group])))

    def distance(option: str) -> float:
        try:
            _, values = _composed(conf, [f"{group}={option}"])
        except PipelineError:  # Such as data/idx.yaml, a template to copy and fill in.
            return math.inf
        return len(wanted ^ set(map(repr, leaves(values[group]))))

    return min(sorted(path.stem for path in (conf / group).glob("*.yaml")), key=distance)


def _trained(config: Config, repository: Workspace) -> str | None:
    """Return the id of the training that `dvc repro` would restore with `config`, or None."""
    outcome = outcome_of(RunCache(repository).find(config))
    return outcome.id if outcome else None


def _text(name: str, source: _Source, conf: Path) -> str:
    """Return the text of the experiment: its base, and the options and values that differ from it."""
    choices, _ = _composed(conf, source.overrides)
    base = choices.get("experiment")
    if base == name:
        raise PipelineError(f"{source.run} is based on the experiment {name}: choose another --name.")
    based = [f"experiment={base}"] if base else []
    plain, _ = _composed(conf, based)
    chosen = {
        group: choice
        for group, choice in choices.items()
        if choice != plain.get(group) and group not in _NOT_CHOSEN and not group.startswith("hydra/")
    }
    _, values_before = _composed(conf, [*based, *(f"{group}={choice}" for group, choice in chosen.items())])
    before = dict(leaves(values_before))
    requested = {override.partition("=")[0].lstrip("+") for override in source.overrides}
    values: dict[str, Any] = {}
    for key, value in leaves(source.config.model_dump(mode="json", exclude={"modules"})):
        # A value that was requested is written even if it is the default, which may change.
        is_requested = any(
            key == other or key.startswith(f"{other}.") for other in requested - choices.keys()
        )
        if is_requested or before.get(key, ...) != value:
            *parents, last = key.split(".")
            branch = values
            for parent in parents:
                branch = branch.setdefault(parent, {})
            branch[last] = value
    defaults = [*([base] if base else []), *(f"override /{group}: {chosen[group]}" for group in chosen)]
    body = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100) if values else ""
    head = (source.result + ".", "", f"  python -m pipeline experiment={name}", "", *source.origin)
    return (
        "# @package _global_\n"
        + "".join(f"# {line}".rstrip() + "\n" for line in head)
        + "defaults:\n"
        + "".join(f"  - {line}\n" for line in (*defaults, "_self_"))
        + f"\n{body}"
    )


class _Dumper(yaml.SafeDumper):
    """Writes each list on one line, as the files in conf/ do."""


_Dumper.add_representer(
    list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)
)


def _composed(conf: Path, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compose, and return the chosen option of each group and the values, which need not be valid.

    Valid values are completed with the defaults that files in conf/ may leave out, as in a run's
    configuration: otherwise a list such as data.sources would seem to differ, and be written out.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    composed = unresolved(conf, overrides)
    values = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    try:
        plain: Any = OmegaConf.to_container(values, resolve=True)
    except OmegaConfBaseException as error:
        raise PipelineError(refused_by_hydra(error)) from None
    plain = with_device(plain)
    with suppress(PipelineError):
        plain = complete(plain, "conf/").trial.model_dump(mode="json", exclude={"modules"})
    return dict(composed.hydra.runtime.choices), plain


def _check(text: str, name: str, config: Config, conf: Path) -> None:
    """Refuse an experiment that does not compose to `config`."""
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(shutil.copytree(conf, Path(folder) / "conf"))
        (copied / "experiment" / f"{name}.yaml").write_text(text, encoding="utf-8")
        made = compose(copied, [f"experiment={name}"])
    if dump(made) == dump(config):
        return
    wanted = dict(leaves(config.model_dump(mode="json")))
    for key, value in leaves(made.model_dump(mode="json")):
        if value != wanted.get(key, ...):
            raise PipelineError(
                f"As an experiment it would have {key} {value} in place of {wanted.get(key)}, since "
                "conf/local/default.yaml overrides experiments: remove the key from that file."
            )
