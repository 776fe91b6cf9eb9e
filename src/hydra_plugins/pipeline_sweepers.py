"""The sweepers that `hydra/sweeper=` names: grid, optuna. Hydra finds its plugins by their package."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class GridSweeper(Sweeper):  # type: ignore[misc] # Hydra's own classes are not followed.
    """Every combination of the values given."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what the launcher will need."""
        self.hydra_context, self.config = hydra_context, config

    def sweep(self, arguments: list[str]) -> Any:
        """Plan the trials that `arguments` span, run those that are not known, and report.

        Raises:
            PipelineError: the sweep is refused, or trials failed.
        """
        from pipeline.sweeps.grid import Grid
        from pipeline.sweeps.sweep import run

        return run(Grid, arguments, self.hydra_context, self.config)


@dataclass
class GridConfig:
    """`hydra/sweeper=grid`."""

    _target_: str = f"{__name__}.GridSweeper"


class OptunaSweeper(GridSweeper):
    """Trials suggested by Optuna in view of those before."""

    def sweep(self, arguments: list[str]) -> Any:
        """Search the space that `arguments` span, and report.

        Raises:
            PipelineError: the search is refused, or trials failed.
        """
        from pipeline.sweeps.search import Search
        from pipeline.sweeps.sweep import run

        return run(Search, arguments, self.hydra_context, self.config)


@dataclass
class OptunaConfig:
    """`hydra/sweeper=optuna`; its settings are those of conf/sweep."""

    _target_: str = f"{__name__}.OptunaSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridConfig, provider="pipeline")
ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaConfig, provider="pipeline")
