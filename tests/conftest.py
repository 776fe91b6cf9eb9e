"""Fixtures for what tests need from the machine: temporary files, a browser and servers."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

import servers
from pipeline.environment import prepare_environment
from pipeline.processes.temporary import own_temporary_folder

# As for the stages, ignore the settings of the machine; tests that import Keras directly read no keras.json.
prepare_environment(Path(tempfile.gettempdir()))
os.environ["KERAS_HOME"] = os.devnull
# A shell lets processes that are started with `&`, and their children, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_temporary_folder(tmp_path_factory):
    """Remove the temporary files that TensorFlow and killed processes leave when the tests end."""
    tmp_path_factory.getbasetemp()  # Created before, because pytest keeps it.
    with own_temporary_folder():
        yield


@pytest.fixture(scope="session")
def chromium():
    """The paths of Chromium and its driver, which CI must have."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if not all(found):
        reason = "needs Chromium and its driver: apt-get install chromium chromium-driver"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def s3():
    """A client of an S3 server with the two buckets of docs/scale.md, and its address."""
    with servers.s3() as found:
        yield found


@pytest.fixture(scope="module")
def postgresql():
    """The port of a PostgreSQL server with the user and the database of docs/scale.md."""
    with servers.postgresql() as port:
        yield port
