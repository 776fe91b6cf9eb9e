"""The command line of a sweep, and the configuration that it composes to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pipeline.artifacts.workspace import Workspace, here
from pipeline.config.compose import compose_sweep
from pipeline.config.schema import Composed
from pipeline.sweeps.plan import parse

if TYPE_CHECKING:
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
    composed: Composed  # the configuration without the swept keys

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
        of_hydra = (text for text in self.hydra.hydra.overrides.hydra if not text.startswith("hydra.mode="))
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
