"""Names that stand for no run, without MLflow."""

from types import SimpleNamespace

import pytest

from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError
from pipeline.registry.versions import Versions
from pipeline.results.adopt import adopt
from pipeline.results.lookup import find, registered


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_does_not_stand_for_the_only_run(tmp_path, name):
    info = SimpleNamespace(run_name="smoke-1", run_id="1")
    run = SimpleNamespace(info=info, data=SimpleNamespace(tags={}))
    assert find("smoke", [run]) is run
    with pytest.raises(PipelineError, match="name of the run is empty"):
        find(name, [run])
    with pytest.raises(PipelineError, match="name of the run is empty"):
        adopt(name, Workspace(tmp_path))


def test_a_number_that_no_database_holds_is_no_version():
    number = 30 * "9"
    assert registered(f"letters/{number}", None) is None
    assert Versions(None, "letters").get(number) is None
