"""A launcher's process whose driver was killed between two trials."""

import subprocess
import sys
import time

import pytest

from proc import is_running
from servers import PATIENCE

# Like joblib's processes: exceptions in or between trials are caught, and the next trial starts.
PROCESS = """
import sys, time
from pathlib import Path
from types import SimpleNamespace

from hydra.core.hydra_config import HydraConfig
from pipeline.sweeps.job import Job

class RecordingJob(Job):
    def run(self, name, folder):
        with (folder.root / "ran").open("a") as file:
            file.write(".")

HydraConfig.get = staticmethod(lambda: SimpleNamespace(job=SimpleNamespace(num=0)))
root, driver, first = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
job = RecordingJob(root, root, {"1": None}, driver, False, "")
(root / "ready").touch()
while first == "after" and not (root / "killed").exists():
    time.sleep(0.02)
for _ in range(300):
    try:
        job(None)
        time.sleep(0.1)
    except BaseException:
        pass
"""
DRIVER = """
import os, subprocess, sys
process = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2], str(os.getpid()), sys.argv[3]])
print(process.pid, flush=True)
process.wait()
"""


@pytest.mark.parametrize("first", ["before", "after"])
def test_a_worker_whose_driver_was_killed_starts_no_trial_and_ends(tmp_path, first):
    """This holds before and after its first trial: the same command will run the trials again."""
    command = [sys.executable, "-c", DRIVER, PROCESS, str(tmp_path), first]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        process = int(driver.stdout.readline())
        wait_for(tmp_path / ("ran" if first == "before" else "ready"))
        driver.kill()
    (tmp_path / "killed").touch()
    deadline = time.monotonic() + PATIENCE
    while is_running(process):
        assert time.monotonic() < deadline, "the process is still running"
        time.sleep(0.05)
    ran = tmp_path / "ran"
    assert not ran.exists() if first == "after" else len(ran.read_text()) < 20


def wait_for(path):
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
