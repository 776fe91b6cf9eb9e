"""Run the jobs of a sweep with Hydra's launcher until they end or are stopped, even if processes die."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING

from pipeline.artifacts.workspace import write_text
from pipeline.errors import PipelineError
from pipeline.sweeps.command import Command
from pipeline.sweeps.folder import NOW, Folder
from pipeline.sweeps.job import Job

if TYPE_CHECKING:
    from hydra.types import HydraContext


def launch(job: Job, command: Command, workers: int) -> None:
    """Run each job with the launcher, `workers` at a time.

    A job whose process died is run once more: another job's crash may have ended it.

    Raises:
        PipelineError: If the launcher ran no trial.
    """
    from hydra.core.plugins import Plugins

    folder = Folder(job.folder)
    context: HydraContext = command.context_with(folder.conf)
    if "n_jobs" in command.hydra.hydra.launcher:
        command.hydra.hydra.launcher.n_jobs = workers
    waiting, crashed = job.trials, set[str]()
    while waiting and not folder.stop.exists():
        crash = ""
        job = replace(job, trials=waiting)
        launcher = Plugins.instance().instantiate_launcher(context, job, command.hydra)
        try:
            launcher.launch([list(trial.overrides) for trial in waiting.values()], initial_job_idx=0)
        except Exception as error:
            # A process of the launcher died, and the launcher gave up on the others.
            crash = f"{type(error).__name__}: {error}"
        for name in waiting:
            trial = folder.trial(name)
            if trial and trial.state == "running":
                if name in crashed:
                    folder.note(name, replace(trial, state="failed", error="its process died"))
                else:
                    folder.forget(name)
                    crashed.add(name)
        left = {name: trial for name, trial in waiting.items() if folder.trial(name) is None}
        if len(left) == len(waiting) and not crashed.intersection(left) and not folder.stop.exists():
            raise PipelineError(f"The launcher {command.launcher} ran no trial. {crash}")
        waiting = left


@contextmanager
def stopping(folder: Folder) -> Iterator[list[int]]:
    """Have Ctrl-C, SIGTERM and SIGHUP end the trials cleanly, and yield the list of signals that arrived."""
    arrived: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if arrived:
            raise KeyboardInterrupt
        arrived.append(number)
        write_text(folder.stop, NOW)

    before = {
        number: signal.signal(number, stop)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        # Under nohup a sweep continues when the terminal is closed.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    }
    from multiprocessing import resource_tracker as multiprocessing

    from joblib.externals.loky.backend import resource_tracker as loky

    over = threading.Event()
    threading.Thread(target=over.wait, daemon=True).start()
    # Processes that this thread starts inherit its blocked signals, so a signal to the whole process group
    # does not end them while they import. The other thread receives it, and the handler runs in this one.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, before)
    try:
        # joblib's two helper processes unblock signals when they start.
        loky.ensure_running()
        multiprocessing.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, before)
        yield arrived
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        over.set()
        for number, handler in before.items():
            signal.signal(number, handler)
