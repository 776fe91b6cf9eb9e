"""Runs that somebody deleted in MLflow, for now or for good: what the commands say, and what still works."""

import pytest
from harness import client, runs
from promoting import SETTINGS, TRACKING, champion, copied, promote_run

from pipeline.errors import PipelineError
from pipeline.registry.promotion import promote, rollback
from pipeline.results.download import download_run, find_model, find_training
from pipeline.results.lookup import look_up
from pipeline.serving.reference import resolve
from pipeline.tracking.identity import read_run
from pipeline.tracking.occasion import occasions_of, show_occasion
from pipeline.verification.runs import check_registry


@pytest.fixture
def repository(evaluated_runs, tmp_path):
    return copied(evaluated_runs, tmp_path / "repository")


def delete(repository, name):
    [run] = [run for run in runs(repository) if run.info.run_name == name]
    client(repository).delete_run(run.info.run_id)
    return run.info.run_id


def delete_for_good(repository, name):
    """Do what `mlflow gc` does to a deleted run."""
    run_id = delete(repository, name)
    client(repository)._tracking_client.store._hard_delete_run(run_id)


def test_a_name_of_a_deleted_run_is_answered_with_how_to_restore_it(repository, tmp_path):
    run_id = delete(repository, "best")
    advice = f"best was deleted in MLflow: `mlflow runs restore --run-id {run_id}` brings it back"
    asking = [
        lambda: look_up(["best", "good"], TRACKING, repository),
        lambda: find_model("bes", TRACKING, repository),
        lambda: find_training(run_id, TRACKING, repository),
        lambda: download_run("best", TRACKING, repository, tmp_path),
        lambda: promote_run(repository, "best"),
        # The run of the model in the workspace, without a name.
        lambda: promote(None, None, "champion", SETTINGS, TRACKING, repository),
    ]
    for ask in asking:
        with pytest.raises(PipelineError, match=advice):
            ask()
    with pytest.raises(PipelineError, match="MLflow has no run 'never'; the latest are: "):
        look_up(["never"], TRACKING, repository)


def test_an_occasion_of_a_deleted_run_is_not_shown_and_the_restoring_is_explained(repository):
    run_id, identity = delete(repository, "best"), read_run(repository.run)["id"]
    [occasion] = occasions_of(repository, identity)
    with pytest.raises(PipelineError, match=f"deleted in MLflow: `mlflow runs restore --run-id {run_id}`"):
        show_occasion(occasion, identity, TRACKING, repository)


def test_a_version_whose_run_was_deleted_for_good_is_used_but_not_compared_or_restored(repository, tmp_path):
    promote_run(repository, "good")
    promote_run(repository, "best")
    delete_for_good(repository, "best")
    # Its own files are all that users need.
    found = find_model("digits@champion", TRACKING, repository)
    assert (found.name, found.version, found.metrics) == ("digits", "2", {})
    assert resolve("digits/2", repository, with_card=True).path.is_file()
    lost = "MLflow no longer has the run of version 2 of digits .* registers its model as a new version"
    with pytest.raises(PipelineError, match=lost):
        download_run("digits/2", TRACKING, repository, tmp_path)
    assert any(lost.partition(" .*")[0] in found.text for found in check_registry(TRACKING, repository))
    closed = promote_run(repository, "same")
    [why] = [check.found for check in closed.checks if check.name == "test images"]
    assert not closed.is_open
    assert "MLflow no longer has the run of version 2" in why
    rollback(None, "champion", "1", TRACKING, repository)
    with pytest.raises(PipelineError, match=lost):
        rollback(None, "champion", "2", TRACKING, repository)
    assert champion(repository) == ("1", "good")
