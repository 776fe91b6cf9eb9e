"""The sweepers `hydra/sweeper=grid` and `optuna`. Hydra finds plugins by their package."""

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class GridSweeper(Sweeper):  # type: ignore[misc] # mypy does not follow Hydra's classes.
    """Run every combination of the given values."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the arguments for `sweep`."""
        self.hydra_context, self.config = hydra_context, config

    def sweep(self, arguments: list[str]) -> Any:
        """Plan the trials of the overrides `arguments`, run those that are not known, and report.

        Raises:
            SystemExit: When the sweep has ended, with its exit code.
        """
        from pipeline.sweeps.grid import Grid
        from pipeline.sweeps.sweep import run

        return run(Grid, arguments, self.hydra_context, self.config)


class OptunaSweeper(GridSweeper):
    """Run trials that Optuna suggests based on the previous ones."""

    def sweep(self, arguments: list[str]) -> Any:
        """Search the space of the overrides `arguments`, and report.

        Raises:
            SystemExit: When the search has ended, with its exit code.
        """
        from pipeline.sweeps.search import Search
        from pipeline.sweeps.sweep import run

        return run(Search, arguments, self.hydra_context, self.config)


# The sweepers have no settings of their own: they are in conf/sweep.
for name, sweeper in (("grid", GridSweeper), ("optuna", OptunaSweeper)):
    node = {"_target_": f"{__name__}.{sweeper.__name__}"}
    ConfigStore.instance().store(group="hydra/sweeper", name=name, node=node, provider="pipeline")
