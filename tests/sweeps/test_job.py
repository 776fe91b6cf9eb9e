"""What a job does about a trial that failed, and which worker it uses."""

from pathlib import Path

import pytest

from pipeline.config.compose import compose
from pipeline.environment import Target
from pipeline.processes.context import TrialContext
from pipeline.results.report import Trial
from pipeline.sweeps import job as jobs
from pipeline.sweeps.folder import NO_MORE, NOW, Folder
from pipeline.sweeps.job import Job
from pipeline.trials.trial import FailedError

CONF = Path(__file__).parents[2] / "conf"
TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1, in run\nValueError: 3 is odd\n'
OF_DVC = "ERROR: failed to reproduce 'train': failed to run: python -m pipeline.stages train, exited with 1\n"


def job_in(folder, **changes):
    return Job(folder, folder, {}, driver=0, server="", **{"stop_at_failure": False} | changes)


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (f"Fetched.\nerror: There is not enough memory.\n{OF_DVC}", "There is not enough memory."),
        (
            f"error: No source gave the data:\n  npm: gone\nFix it.\n{OF_DVC}",
            "No source gave the data: npm: gone Fix it.",
        ),
        (f"error: an earlier attempt\n\nerror: the last one\n{OF_DVC}", "the last one"),
        (f"Training.\n{TRACEBACK}{OF_DVC}", "ValueError: 3 is odd (its output is in LOG)"),
        ("ERROR: failed to read the cache\n", "failed to read the cache"),
        ("Training.\n", "it ended without an error message; its output is in LOG"),
    ],
)
def test_the_reason_is_what_the_stage_said_not_what_dvc_adds(tmp_path, monkeypatch, printed, reason):
    log, config = tmp_path / "log", compose(CONF, ["experiment=smoke"])

    def fail(job, config, log, context):
        log.write_text(printed)
        raise FailedError(config, 1)

    monkeypatch.setattr(Job, "_run_stages", fail)
    ended = job_in(tmp_path).attempt(config, Trial(()), log, TrialContext())
    assert (ended.state, ended.error) == ("failed", reason.replace("LOG", str(log)))


def test_an_error_that_nobody_expected_fails_its_trial_and_is_in_the_log(tmp_path, monkeypatch):
    def fail(job, *arguments):
        raise ValueError("3 is odd")

    monkeypatch.setattr(Job, "_run_stages", fail)
    ended = job_in(tmp_path).attempt(None, Trial(()), tmp_path / "log", TrialContext())
    assert (ended.state, ended.error) == ("failed", "ValueError: 3 is odd")
    assert (tmp_path / "log").read_text().startswith("Traceback")


@pytest.mark.parametrize(
    ("state", "stops", "before", "after"),
    [
        ("failed", True, None, NO_MORE),
        ("failed", True, NOW, NOW),  # Ctrl-C came first
        ("failed", False, None, None),
        ("done", True, None, None),
    ],
)
def test_a_failure_ends_the_sweep_only_if_that_was_asked_for(
    tmp_path, monkeypatch, state, stops, before, after
):
    def run(job, name, folder):
        if before:
            folder.stop.write_text(before)
        return Trial(1, state=state)

    monkeypatch.setattr(Job, "run", run)
    job_in(tmp_path, stop_at_failure=stops)._run_next("1")
    stop = Folder(tmp_path).stop
    assert (stop.read_text() if stop.exists() else None) == after


def test_a_worker_is_used_again_until_it_died_or_ran_many_trials_or_the_target_is_another(
    tmp_path, monkeypatch
):
    stopped = []

    class RecordingWorker:
        def __init__(self, server, target):
            self.target, self.trials, self.alive = target, 1, True

        def stop(self):
            stopped.append(self)

    monkeypatch.setattr(jobs, "Worker", RecordingWorker)
    monkeypatch.setattr(Job, "_worker", None)
    job, cpu, gpu = job_in(tmp_path), Target(), Target(device="gpu")
    used = [job._warm(cpu)[1] for _ in range(51)]
    assert [worker is used[0] for worker in used] == [True] * 50 + [False]
    used[50].alive = False
    _, third = job._warm(cpu)
    _, other = job._warm(gpu)
    assert stopped == [used[0], used[50], third]
    assert (other.target, job._warm(gpu)[1]) == (gpu, other)
