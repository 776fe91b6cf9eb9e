"""A failed trial names the reason that its stage printed."""

from pathlib import Path

import pytest

from pipeline.config.compose import compose
from pipeline.processes.context import TrialContext
from pipeline.results.report import Trial
from pipeline.sweeps.job import Job
from pipeline.trials.trial import FailedError

CONF = Path(__file__).parents[2] / "conf"
TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1, in run\nValueError: 3 is odd\n'
OF_DVC = "ERROR: failed to reproduce 'train': failed to run: python -m pipeline.stages train, exited with 1\n"


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
    job = Job(tmp_path, tmp_path, {}, driver=0, stop_at_failure=False, server="")
    ended = job.attempt(config, Trial(()), log, TrialContext())
    assert (ended.state, ended.error) == ("failed", reason.replace("LOG", str(log)))
