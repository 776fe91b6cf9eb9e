"""Names that stand for no run, without MLflow."""

from types import SimpleNamespace

import pytest

from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError
from pipeline.registry.versions import Versions
from pipeline.results.adopt import adopt
from pipeline.results.lookup import find, registered, resolve_one
from pipeline.tracking.evaluation_run import REPORTS_TAG
from pipeline.tracking.run import SWEEP_TAG


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


def a_run(name, accuracy=None, **tags):
    info = SimpleNamespace(run_name=name, run_id=f"id of {name}")
    metrics = {} if accuracy is None else {"best_val_accuracy": accuracy}
    return SimpleNamespace(info=info, data=SimpleNamespace(tags=tags, metrics=metrics))


def test_the_beginning_of_several_names_stands_for_none_of_them():
    runs = [a_run("smoke-1"), a_run("smoke-12"), a_run("other")]
    assert find("smoke-1", runs) is runs[0]
    with pytest.raises(PipelineError, match=r"'smoke' may be any of 2 runs: smoke-12 .*, smoke-1 "):
        find("smoke", runs)


def test_a_sweep_stands_for_its_best_trial_where_one_run_is_needed():
    trial = {f"{SWEEP_TAG}.1a": "1", REPORTS_TAG: "digest"}
    worse, best = a_run("worse", 0.8, **trial), a_run("best", 0.9, **trial)
    others = [
        a_run("of no sweep", 0.99, **{REPORTS_TAG: "digest"}),
        a_run("failed", **{f"{SWEEP_TAG}.1a": "3"}),
    ]
    sweep = a_run("sweep-smoke", **{SWEEP_TAG: "1a"})
    assert resolve_one("sweep", [worse, best, *others, sweep]) is best
    assert resolve_one("worse", [worse, best, *others, sweep]) is worse
    assert resolve_one("sweep", [worse, sweep]) is worse
    with pytest.raises(PipelineError, match="The sweep sweep-smoke has no evaluated trial"):
        resolve_one("sweep", [*others, sweep])
