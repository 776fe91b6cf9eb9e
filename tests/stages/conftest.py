import shutil

import pytest
from stripes import composed, prepare

from pipeline.artifacts.workspace import Workspace


@pytest.fixture(scope="session")
def stripes(tmp_path_factory):
    """A workspace for evaluate, to be copied."""
    return prepare(composed(), Workspace(tmp_path_factory.mktemp("stripes"))).root


@pytest.fixture(scope="session")
def config():
    """The configuration of `stripes`."""
    return composed()


@pytest.fixture
def workspace(stripes, tmp_path):
    """A copy of `stripes`."""
    return Workspace(shutil.copytree(stripes, tmp_path / "workspace"))
