"""A trial of a sweep becomes an experiment: a short file in conf/ that composes to its configuration."""

import re
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.config.compose import compose, unresolved
from pipeline.config.params import dump
from pipeline.config.schema import Config
from pipeline.config.section import leaves
from pipeline.errors import PipelineError
from pipeline.results.leaderboard import label_of, text_of
from pipeline.results.report import Report, Trial, reports
from pipeline.trials.outcome import key_of, outcome_of
from pipeline.trials.run_cache import RunCache

# Groups whose choice is no part of a trial's configuration, or is made by the experiment itself.
_NOT_CHOSEN = ("sweep", "experiment", "local")


def adopt(run: str, repository: Workspace, name: str | None = None, force: bool = False) -> list[str]:
    """Write conf/experiment/NAME.yaml from a trial, and say what to do with it.

    Args:
        run: the name or the id of the trial's run, or the unique beginning of one.
        repository: has conf/ and the sweeps.
        name: of the experiment; None: made from the configuration's name and the run's id.
        force: write over a file that is there.

    Raises:
        PipelineError: no such trial, conf/ no longer composes to its configuration, or the file exists.
    """
    report, trial = _find(run, repository)
    conf = repository.root / "conf"
    config = compose(conf, trial.overrides)
    if key_of(config) != trial.key and _trained(config, repository) != trial.run_id:
        raise PipelineError(
            f"conf/ has changed since the sweep {report.name}: the values of {trial.run} now make another "
            "training. Give the sweep's command again, which trains or restores it, and adopt from that."
        )
    name = name or re.sub(r"[^\w-]+", "-", f"{config.name}-{trial.run_id}")[: len(config.name) + 5]
    if not re.fullmatch(r"\w[\w-]*", name):
        raise PipelineError(f"{name!r} is no name for an experiment: use letters, digits, _ and -.")
    place = conf / "experiment" / f"{name}.yaml"
    if place.exists() and not force:
        raise PipelineError(f"{place} exists: choose another --name, or write over it with --force.")
    text = _text(name, report, trial, config, conf)
    _check(text, name, config, conf)
    write_text(place, text)
    return [
        f"Wrote conf/experiment/{name}.yaml: {_result(report, trial)}.",
        f"For good: set `experiment: {name}` in conf/config.yaml and run `dvc repro`, which restores it.",
        f"For once: python -m pipeline experiment={name}",
    ]


def _find(run: str, repository: Workspace) -> tuple[Report, Trial]:
    """The trial with that run, and the latest sweep that it is in."""
    found: dict[str | None, tuple[Report, Trial]] = {}
    for _, report in reports(repository):
        for trial in report.trials:
            if trial.has_result:
                found.setdefault(trial.run_id, (report, trial))
    exact = [match for match in found.values() if run in (match[1].run, match[1].run_id)]
    begin = [match for match in found.values() if f"{match[1].run} {match[1].run_id}".startswith(run)]
    begin += [match for match in found.values() if str(match[1].run_id).startswith(run)]
    matches = exact or begin
    if len(matches) == 1:
        return matches[0]
    named = ", ".join(f"{trial.run} ({trial.run_id})" for _, trial in (matches or list(found.values()))[:5])
    if matches:
        raise PipelineError(f"{run!r} may be any of {len(matches)} runs: {named}.")
    raise PipelineError(f"No sweep here has a run {run!r} with a result; there are: {named or 'none yet'}.")


def _trained(config: Config, repository: Workspace) -> str | None:
    """The id of the training that `dvc repro` would restore with `config`."""
    outcome = outcome_of(RunCache(repository).find(config))
    return outcome.id if outcome else None


def _text(name: str, report: Report, trial: Trial, config: Config, conf: Path) -> str:
    """The experiment: what it is based on, the options of groups that differ from that, the values."""
    choices, _ = _composed(conf, trial.overrides)
    base = choices.get("experiment")
    if base == name:
        raise PipelineError(f"The trial is based on the experiment {name}: choose another --name.")
    based = [f"experiment={base}"] if base else []
    plain, _ = _composed(conf, based)
    chosen = {
        group: choice
        for group, choice in choices.items()
        if choice != plain.get(group) and group not in _NOT_CHOSEN and not group.startswith("hydra/")
    }
    _, values_before = _composed(conf, [*based, *(f"{group}={choice}" for group, choice in chosen.items())])
    before = dict(leaves(values_before))
    typed = {override.partition("=")[0].lstrip("+") for override in trial.overrides}
    values: dict[str, Any] = {}
    for key, value in leaves(config.model_dump(mode="json", exclude={"modules"})):
        # What was asked for stays, whatever becomes of the defaults.
        asked = any(key == other or key.startswith(f"{other}.") for other in typed - choices.keys())
        if asked or before.get(key, ...) != value:
            *parents, last = key.split(".")
            branch = values
            for parent in parents:
                branch = branch.setdefault(parent, {})
            branch[last] = value
    defaults = [*([base] if base else []), *(f"override /{group}: {chosen[group]}" for group in chosen)]
    body = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100) if values else ""
    return (
        "# @package _global_\n"
        f"# {_result(report, trial)}.\n"
        "#\n"
        f"#   python -m pipeline experiment={name}\n"
        "#\n"
        f"# Trial {trial.number} of {len(report.trials)} in {report.name}, {trial.run}:\n"
        f"#   python -m pipeline -m {shlex.join(report.command)}\n"
        "defaults:\n" + "".join(f"  - {line}\n" for line in (*defaults, "_self_")) + f"\n{body}"
    )


class _Dumper(yaml.SafeDumper):
    """Writes lists in a line, as the files in conf/ have them."""


_Dumper.add_representer(
    list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)
)


def _composed(conf: Path, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Which option of each group Hydra composes with, and the values, which need not be valid."""
    from omegaconf import OmegaConf

    composed = unresolved(conf, overrides)
    values = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    plain: Any = OmegaConf.to_container(values, resolve=True)
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
                "conf/local/default.yaml comes after experiments: take the key out there."
            )


def _result(report: Report, trial: Trial) -> str:
    reached = ", ".join(
        f"{name} {text_of(name, trial.values[name])}" for name in report.objectives if name in trial.values
    )
    return f"{reached} with {label_of(trial.differs)}"
