import pytest
from stripes import composed, prepare

from pipeline.artifacts.workspace import Workspace


@pytest.fixture(scope="session")
def stripes(tmp_path_factory):
    """A workspace for evaluate, to be copied."""
    return prepare(composed(), Workspace(tmp_path_factory.mktemp("stripes"))).root
