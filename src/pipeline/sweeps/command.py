"""The command line of a sweep, and the configuration that it composes to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pipeline.artifacts.workspace import Workspace, here
from pipeline.config.compose import compose_sweep
from pipeline.config.overrides import parse as parse_overrides
from pipeline.config.schema import SweepConfig
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override
    from hydra.types import HydraContext
    from omegaconf import DictConfig

# The default. Trials share the time of the GPU: more than two get no more done, see docs/gpu.md.
_TRIALS_ON_A_GPU = 2


@dataclass(frozen=True)
class Command:
    """The command line of a sweep, parsed and composed."""

    arguments: tuple[str, ...]  # the overrides of the command line
    hydra_context: "HydraContext"  # how Hydra composes
    hydra: "DictConfig"  # what Hydra composed for the sweep as a whole
    repository: Workspace
    overrides: tuple["Override", ...]  # those of the command line and of sweep.params in conf/
    composed: SweepConfig  # the configuration of the sweep as a whole

    @classmethod
    def read(cls, arguments: Sequence[str], hydra_context: "HydraContext", config: "DictConfig") -> Self:
        """Parse and compose the overrides of the command line.

        Raises:
            PipelineError: If an override, or the configuration without the swept keys, is invalid.
        """
        repository, loader = here(), hydra_context.config_loader
        plain = [
            part.input_line or "" for part in parse(arguments, {}, loader) if not part.is_sweep_override()
        ]
        composed = compose_sweep(repository.root / "conf", plain)
        overrides = tuple(parse(arguments, composed.sweep.params, loader))
        return cls(tuple(arguments), hydra_context, config, repository, overrides, composed)

    @property
    def conf(self) -> Path:
        """The repository's conf/."""
        return self.repository.root / "conf"

    @property
    def command_line(self) -> tuple[str, ...]:
        """All overrides of the command line, those of Hydra's own settings first."""
        from omegaconf import OmegaConf

        # Not resolved: a folder's name may refer to the number of a trial, which only a trial has.
        texts = OmegaConf.to_container(self.hydra.hydra.overrides.hydra, resolve=False)
        assert isinstance(texts, list)
        of_hydra = (text for text in texts if not text.startswith("hydra.mode="))
        return (*of_hydra, *self.arguments)

    @property
    def space(self) -> dict[str, Any]:
        """By swept key, its values, or the text of the override if they can't be listed."""
        return {
            part.get_key_element(): list(part.sweep_string_iterator())
            if part.is_discrete_sweep()
            else str(part.input_line).partition("=")[2]
            for part in self.overrides
            if part.is_sweep_override()
        }

    @property
    def launcher(self) -> str:
        """The name of the launcher."""
        return str(self.hydra.hydra.runtime.choices["hydra/launcher"])

    def workers(self, device: str) -> int:
        """Return how many trials the launcher runs at a time on a device, `cpu` or `gpu`."""
        if self.launcher == "ray":
            from hydra_plugins.pipeline_launchers import slots

            return slots(self.hydra.hydra.launcher)
        from joblib import effective_n_jobs

        n_jobs: int = self.hydra.hydra.launcher.get("n_jobs", 1)
        if n_jobs == -1 and device == "gpu":
            return _TRIALS_ON_A_GPU
        return int(effective_n_jobs(n_jobs))

    def context_with(self, conf: Path) -> "HydraContext":
        """Return Hydra's context with the copy `conf` in place of the repository's, which may change."""
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
        from hydra.types import HydraContext

        search_path = ConfigSearchPathImpl()
        for element in self.hydra_context.config_loader.get_search_path().get_path():
            is_ours = str(element.path).removeprefix("file://") == str(self.conf.resolve())
            search_path.append(element.provider, f"file://{conf}" if is_ours else element.path)
        return HydraContext(ConfigLoaderImpl(search_path), self.hydra_context.callbacks)


def parse(
    arguments: Sequence[str], params: Mapping[str, object], loader: "ConfigLoader | None" = None
) -> list["Override"]:
    """Parse the overrides of the command line, and those of `params` whose keys it does not set itself.

    The params are values, or the text that names them, by key.

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
