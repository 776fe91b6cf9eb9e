"""A stage ends when DVC is killed, whatever shell DVC runs it in."""

import os
import signal
import subprocess
import sys

import pytest

STAGE = """
import os, signal
from pipeline.processes.system import die_with_dvc
die_with_dvc()
print(os.getpid(), flush=True)
signal.pause()
"""
DVC = "import subprocess, sys; subprocess.run(['sh', '-c', sys.argv[1], sys.executable])"


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
@pytest.mark.parametrize("command", ['exec "$0" -c "$STAGE"', '"$0" -c "$STAGE"; exit $?'])
def test_a_stage_ends_with_dvc_whether_or_not_the_shell_waits_for_it(command):
    dvc = subprocess.Popen(
        [sys.executable, "-c", DVC, command], stdout=subprocess.PIPE, env=os.environ | {"STAGE": STAGE}
    )
    with dvc:
        stage = os.pidfd_open(int(dvc.stdout.readline()))
        dvc.send_signal(signal.SIGKILL)
        # The pipe is closed once the shell and the stage have ended, too.
        try:
            assert dvc.communicate(timeout=20)[0] == b""
        except subprocess.TimeoutExpired:
            signal.pidfd_send_signal(stage, signal.SIGKILL)
            raise
        finally:
            os.close(stage)
