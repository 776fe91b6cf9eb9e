"""The launcher that `hydra/launcher=ray` names. Hydra finds its plugins by their package."""

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


class RayLauncher(Launcher):  # type: ignore[misc] # Hydra's own classes are not followed.
    """A trial on every CPU of a Ray cluster whose nodes share the repository's folder.

    Args:
        address: of the cluster; None: RAY_ADDRESS, or the one on this machine, or else one is started here.
        cpus_per_trial: how many of a node's CPUs a trial takes.
        gpus_per_trial: how many of a node's GPUs, or which share of one.
    """

    def __init__(self, address: str | None, cpus_per_trial: float, gpus_per_trial: float) -> None:
        self._address, self._cpus, self._gpus = address, cpus_per_trial, gpus_per_trial

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what is needed later."""
        self._hydra_context, self._task_function, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        """Run the task with each of `job_overrides`, to the end of all of them.

        Raises:
            RayError: of the first whose process or node died; the others have ended as they would.
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
    """`hydra/launcher=ray`."""

    _target_: str = f"{__name__}.RayLauncher"
    address: str | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0


ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayConfig, provider="pipeline")


def connected(address: str | None) -> Any:
    """Ray, connected to the cluster.

    Raises:
        PipelineError: Ray is not installed, or the cluster does not answer.
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
        # A node was started in an environment of its own; a tracking server is this command's to name.
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
            said = " ".join(str(error).split())
            raise PipelineError(f"No Ray cluster answers at {address}: {said}") from None
    return ray


def _refuse_unreachable(address: str) -> None:
    """Ask at once what Ray asks for minutes."""
    host, _, port = address.partition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=_TIMEOUT).close()
        except OSError as error:
            raise PipelineError(
                f"No Ray cluster answers at {address} ({error.strerror or error}): "
                "start one by `ray start --head`, or mend hydra.launcher.address or RAY_ADDRESS."
            ) from None


def slots(config: RayConfig) -> int:
    """How many trials the cluster runs at a time."""
    resources = connected(config.address).cluster_resources()
    found = resources.get("CPU", 0) / config.cpus_per_trial
    if config.gpus_per_trial:
        found = min(found, resources.get("GPU", 0) / config.gpus_per_trial)
    return max(1, int(found))


def _run(task_function: TaskFunction, config: DictConfig) -> None:
    HydraConfig.instance().set_config(config)
    task_function(config)
