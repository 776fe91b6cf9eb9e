"""compose: conf/ becomes params.yaml, which the other stages read and DVC watches."""

from pathlib import Path

import yaml

from pipeline.artifacts.workspace import Workspace, remove, write_text
from pipeline.config.compose import complete, compose
from pipeline.config.params import check_unedited, dump
from pipeline.config.unsafe_yaml import refuse_unsafe_yaml
from pipeline.console import say
from pipeline.errors import PipelineError


def run(workspace: Workspace, dvc_experiment: str | None = None) -> None:
    """Write params.yaml.

    Under `dvc exp run`, DVC has already composed conf/ with the overrides of `-S` into params.yaml:
    these values are validated and kept. Refused ones are deleted: DVC resolves what conf/ would take
    from the environment, and a later `dvc repro` would take its file for an edit by hand.

    Args:
        workspace: has conf/; gets params.yaml.
        dvc_experiment: the experiment's name under `dvc exp run`.

    Raises:
        PipelineError: a value is refused, or params.yaml was edited by hand.
    """
    conf = workspace.root / "conf"
    if dvc_experiment:
        try:
            refuse_unsafe_yaml(conf)
            values = _read_dvc_params(workspace.params)
            config = complete(values, f"experiment {dvc_experiment}").trial
        except PipelineError:
            remove(workspace.params)
            raise
    else:
        if workspace.params.exists():
            check_unedited(workspace.params)
        config = compose(conf)
    write_text(workspace.params, dump(config))
    say(f"Composed params.yaml: {config.name}, seed {config.seed}.")


def _read_dvc_params(path: Path) -> dict[str, object]:
    """What DVC dumped; OmegaConf reads its floats (1e-05) as floats, PyYAML would not."""
    from omegaconf import OmegaConf

    try:
        values = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise PipelineError(f"{path} can't be read: {error}") from None
    if not isinstance(values, dict):
        raise PipelineError(f"{path} holds no configuration.")
    return {str(key): value for key, value in values.items()}
