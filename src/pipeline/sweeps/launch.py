"""Having Hydra's launcher run the jobs of a sweep until they end or are stopped, also if processes die."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING

from pipeline.artifacts.workspace import write_text
from pipeline.errors import PipelineError
from pipeline.sweeps.folder import NOW, Folder
from pipeline.sweeps.job import Job

if TYPE_CHECKING:
    from hydra.types import HydraContext
    from omegaconf import DictConfig

    from pipeline.sweeps.sweep import Sweep


def workers(config: "DictConfig") -> int:
    """How many trials the launcher runs at a time."""
    if config.hydra.runtime.choices["hydra/launcher"] == "ray":
        from hydra_plugins.pipeline_launchers import slots

        return slots(config.hydra.launcher)
    jobs: int = config.hydra.launcher.get("n_jobs", 1) or 1
    return jobs if jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + jobs)


def launch(own: "Sweep", job: Job, hydra_context: "HydraContext", config: "DictConfig") -> None:
    """Have the launcher run each job; those whose process died with another's start once more."""
    from hydra.core.plugins import Plugins

    waiting, crashed = own.jobs, set[str]()
    while waiting and not own.folder.stop.exists():
        crash = ""
        job = replace(job, keys=tuple(waiting))
        launcher = Plugins.instance().instantiate_launcher(hydra_context, job, config)
        try:
            launcher.launch([list(overrides) for overrides in waiting.values()], initial_job_idx=0)
        except Exception as error:
            # A process of the launcher's died, and it gave up the others.
            crash = f"{type(error).__name__}: {error}"
        for name in waiting:
            progress = own.folder.progress(name)
            if progress and progress.state == "running":
                if name in crashed:
                    own.folder.note(name, replace(progress, state="failed", error="its process died"))
                else:
                    own.folder.forget(name)
                    crashed.add(name)
        left = {name: overrides for name, overrides in waiting.items() if own.folder.progress(name) is None}
        if len(left) == len(waiting) and not crashed.intersection(left) and not own.folder.stop.exists():
            raise PipelineError(f"The launcher {own.head.launcher} ran no trial. {crash}")
        waiting = left


@contextmanager
def stopping(folder: Folder) -> Iterator[list[int]]:
    """Have Ctrl-C and SIGTERM end the trials in an orderly way; gives the signals that came."""
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)
        write_text(folder.stop, NOW)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
