"""compose: write params.yaml from conf/; the other stages read it, and DVC watches it."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.config.compose import complete, compose
from pipeline.config.params import dump, experiment_of, unedited_values
from pipeline.config.schema import Config
from pipeline.config.section import leaves
from pipeline.config.unsafe_yaml import refuse_unsafe_yaml, yaml_files
from pipeline.console import count, say
from pipeline.errors import PipelineError

_SHORTEST_SECRET = 6
# Not secret: their values also occur in names, paths and settings.
_NO_SECRETS = {
    "HOME",
    "HOSTNAME",
    "LANG",
    "LOGNAME",
    "OLDPWD",
    "PATH",
    "PWD",
    "SHELL",
    "TERM",
    "TMPDIR",
    "USER",
}


def run(workspace: Workspace, dvc_experiment: str | None = None) -> None:
    """Write params.yaml.

    Under `dvc exp run`, DVC has already composed conf/ with the overrides of `-S` into params.yaml:
    these values are validated and kept. If they are invalid, params.yaml is composed from conf/ without the
    overrides: DVC's file may contain values from the environment, and a later `dvc repro` would take it for a
    manual edit.

    Raises:
        PipelineError: If a value is invalid, or params.yaml was edited by hand or has an experiment's values.
    """
    conf = workspace.root / "conf"
    if dvc_experiment:
        try:
            config = _of_experiment(workspace.params, conf, dvc_experiment)
        except PipelineError:
            workspace.params.unlink(missing_ok=True)
            write_text(workspace.params, dump(compose(conf)))
            raise
        text = dump(config, dvc_experiment if config != compose(conf) else None)
    else:
        config = compose(conf)
        if workspace.params.exists():
            _refuse_loss(workspace.params, config)
        text = dump(config)
    write_text(workspace.params, text)
    say(f"Composed params.yaml: {config.name}, seed {config.seed}.{_device(config)}{_personal(conf)}")


def _device(config: Config) -> str:
    """Return a sentence on the devices that JAX uses; "" with TensorFlow, which uses the processor."""
    train = config.train
    if train.backend == "tensorflow":
        return ""
    return f" JAX computes with {count(train.devices, train.device)}."


def _personal(conf: Path) -> str:
    """Return a sentence about personal settings, which git does not have; "" if there are none."""
    if not (conf / "local" / "default.yaml").exists():
        return ""
    return (
        " It includes your conf/local/default.yaml, which git ignores: before you commit params.yaml and "
        "dvc.lock, move that file away and run `dvc repro`."
    )


def _refuse_loss(params: Path, config: Config) -> None:
    """Refuse to overwrite values that were edited by hand, or that belong to a DVC experiment."""
    values = dict(leaves(config.model_dump(mode="json")))
    differs = [
        f"{key} {value} (conf/: {values.get(key)})"
        for key, value in leaves(unedited_values(params))
        if value != values.get(key, ...) and not key.startswith("modules.")
    ]
    if differs and (experiment := experiment_of(params)):
        raise PipelineError(
            f"params.yaml has the values of the DVC experiment {experiment}: {', '.join(differs[:5])}"
            f"{', ...' if differs[5:] else ''}. Either put them into conf/, or delete params.yaml to go "
            f"back to conf/ (`dvc exp apply {experiment}` restores them); then run `dvc repro`."
        )


def _of_experiment(params: Path, conf: Path, experiment: str) -> Config:
    """Return the configuration that DVC composed, validated and checked for secrets."""
    refuse_unsafe_yaml(conf)
    config = complete(_read_dvc_params(params), f"experiment {experiment}").trial
    loaded = [yaml.load(path.read_bytes(), yaml.CBaseLoader) for path in yaml_files(conf)]  # noqa: S506 (strings)
    known = set(_texts(loaded))
    secrets = {
        name: secret
        for name, secret in os.environ.items()
        if len(secret) >= _SHORTEST_SECRET
        and secret not in known
        and name not in _NO_SECRETS
        # DVC's own variables name the experiment.
        and not name.startswith("DVC_")
    }
    for key, value in leaves(config.model_dump(mode="json", exclude={"modules"})):
        for name, secret in secrets.items():
            if any(secret in text for text in set(_texts(value)) - known):
                raise PipelineError(
                    f"{key} has the value of the environment variable {name}, but params.yaml and MLflow "
                    "show every value. Tools read secrets from the environment; put other values into conf/."
                )
    return config


def _texts(value: Any) -> Iterator[str]:
    """Yield the strings in nested values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for below in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(below)


def _read_dvc_params(path: Path) -> dict[str, object]:
    """Read what DVC wrote with OmegaConf, since PyYAML would not read floats such as 1e-05 as floats."""
    from omegaconf import OmegaConf

    try:
        values = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise PipelineError(f"{path} can't be read: {error}") from None
    if not isinstance(values, dict):
        raise PipelineError(f"{path} does not contain a configuration.")
    return {str(key): value for key, value in values.items()}
