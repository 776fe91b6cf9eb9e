"""What tests need of the machine."""

import os
import shutil
import signal

import pytest

# As pipeline.models sets it, for tests that import Keras first: it changes the last bits of weights.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# A shell has what is started with `&` ignore Ctrl-C, and all that those start in turn.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def chromium():
    """Chromium and its driver, which CI must have."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if not all(found):
        reason = "needs Chromium and its driver: apt-get install chromium chromium-driver"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found
