"""The launcher `hydra/launcher=ray`. Hydra finds plugins by their package."""

import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from pipeline.errors import PipelineError

_TIMEOUT = 5.0  # seconds


class RayLauncher(Launcher):  # type: ignore[misc] # mypy does not follow Hydra's classes.
    """Run trials on a Ray cluster whose nodes share the repository's folder.

    Args:
        address: the address of the cluster; if None, RAY_ADDRESS, or else the cluster on this machine, which
            is started if there is none.
        cpus_per_trial: how many CPUs of a node a trial takes.
        gpus_per_trial: how many GPUs of a node a trial takes; a fraction is a share of one.
    """

    def __init__(self, address: str | None, cpus_per_trial: float, gpus_per_trial: float) -> None:
        self._address, self._cpus, self._gpus = address, cpus_per_trial, gpus_per_trial

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the arguments for `launch`."""
        self._hydra_context, self._task_function, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        """Run the task with each of `job_overrides`, and wait until all have ended.

        Raises:
            RayError: If the process or node of a task died; the first such error, once the others have ended.
        """
        ray = connected(self._address)
        run = ray.remote(num_cpus=self._cpus, num_gpus=self._gpus, max_retries=0)(_run)
        tasks = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            config = self._hydra_context.config_loader.load_sweep_config(self._config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            tasks.append(run.remote(self._task_function, config))
        errors = []
        for task in tasks:
            try:
                ray.get(task)
            except ray.exceptions.RayError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return []


@dataclass
class RayConfig:
    """The settings of `hydra/launcher=ray`."""

    _target_: str = f"{__name__}.RayLauncher"
    address: str | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0


ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayConfig, provider="pipeline")


def connected(address: str | None) -> Any:
    """Return the module `ray`, connected to the cluster.

    Raises:
        PipelineError: If Ray is not installed, or the cluster does not answer.
    """
    try:
        import ray
    except ImportError:
        raise PipelineError(
            "hydra/launcher=ray needs Ray, which is not installed: `make setup EXTRAS=ray` installs it."
        ) from None
    if not ray.is_initialized():
        address = address or os.environ.get("RAY_ADDRESS")
        if address:
            _refuse_unreachable(address)
        # Nodes have their own environment; the tracking server is the one that this command is set to.
        variables = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
        variables["PYTHONPATH"] = str(Path(__file__).parents[1])
        try:
            ray.init(
                address,
                runtime_env={"env_vars": variables},
                logging_level=logging.ERROR,
                log_to_driver=False,
                include_dashboard=None if address else False,
            )
        except (ConnectionError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise PipelineError(f"No Ray cluster answers at {address}: {reason}") from None
    return ray


def _refuse_unreachable(address: str) -> None:
    """Refuse an address at once that does not answer; Ray would try for minutes."""
    host, _, port = address.partition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=_TIMEOUT).close()
        except OSError as error:
            raise PipelineError(
                f"No Ray cluster answers at {address} ({error.strerror or error}): "
                "start one with `ray start --head`, or fix hydra.launcher.address or RAY_ADDRESS."
            ) from None


def slots(config: RayConfig) -> int:
    """Return how many trials the cluster runs at a time."""
    resources = connected(config.address).cluster_resources()
    count = resources.get("CPU", 0) / config.cpus_per_trial
    if config.gpus_per_trial:
        count = min(count, resources.get("GPU", 0) / config.gpus_per_trial)
    return max(1, int(count))


def _run(task_function: TaskFunction, config: DictConfig) -> None:
    HydraConfig.instance().set_config(config)
    task_function(config)
