import shutil

import pytest
from composing import CONF


@pytest.fixture
def conf(tmp_path):
    """Return a copy of conf/ to break."""
    copy = tmp_path / "project" / "conf"
    shutil.copytree(CONF, copy, ignore=shutil.ignore_patterns("local"))
    return copy
