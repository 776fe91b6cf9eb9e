"""Logged models that somebody deleted in MLflow, for now or for good, with or without their files."""

import pytest
from harness import client, runs
from mlflow.tracking._tracking_service import utils
from promoting import TRACKING, champion, copied, failed, promote_run

from pipeline.errors import PipelineError
from pipeline.registry.promotion import rollback
from pipeline.results.download import find_model
from pipeline.serving.reference import resolve
from pipeline.tracking.mlflow_run import logged_model_of
from pipeline.tracking.session import sync
from pipeline.verification.runs import check_registry


@pytest.fixture
def repository(evaluated_runs, tmp_path):
    # MLflow remembers where models are by their ids, which all copies share.
    utils._artifact_repos_cache.clear()
    repository = copied(evaluated_runs, tmp_path / "repository")
    list(sync(TRACKING, repository))
    return repository


def run_named(repository, name):
    [run] = [run for run in runs(repository) if run.info.run_name == name]
    return run


def model_of(repository, name):
    run = run_named(repository, name)
    return logged_model_of(client(repository), run.info.experiment_id, run.info.run_id)


def delete_model(repository, name, for_good=True):
    store, model = client(repository), model_of(repository, name)
    store.delete_logged_model(model.model_id)
    if for_good:
        store._tracking_client.store._hard_delete_logged_model(model.model_id)
    return model.model_id


@pytest.mark.parametrize("for_good", [False, True])
def test_the_deleted_model_of_the_workspace_is_sent_again(repository, for_good):
    lost = delete_model(repository, "best", for_good)
    with pytest.raises(PipelineError, match="no longer has the model of the run best: `pipeline sync` sends"):
        find_model("best", TRACKING, repository)
    list(sync(TRACKING, repository))
    again = model_of(repository, "best")
    assert again.model_id != lost
    assert resolve("best", repository).path.is_file()
    assert {"test_accuracy", "val_loss"} <= {metric.key for metric in again.metrics}
    list(sync(TRACKING, repository))
    assert model_of(repository, "best").model_id == again.model_id


@pytest.mark.parametrize("for_good", [False, True])
def test_a_version_whose_model_was_deleted_is_registered_again(repository, for_good):
    promote_run(repository, "good")
    promote_run(repository, "best")
    delete_model(repository, "best", for_good)
    closed = promote_run(repository, "same")
    assert not closed.is_open
    assert "test images" in failed(closed)
    # Without a name, this sends the model in models/ again.
    assert promote_run(repository, None).version == "3"
    assert resolve("digits@champion", repository).path.is_file()
    assert "already" in promote_run(repository, None).message
    [problem] = check_registry(TRACKING, repository)
    assert "Version 2 of digits is not the model of its run best: " in problem.text
    client(repository).delete_model_version("digits", "2")
    assert check_registry(TRACKING, repository) == []
    rollback(None, "champion", "1", TRACKING, repository)
    assert champion(repository) == ("1", "good")


def test_a_deleted_model_of_another_run_is_refused_with_advice(repository):
    delete_model(repository, "good")
    with pytest.raises(PipelineError, match="with the run's values, does"):
        promote_run(repository, "good")


def test_a_registered_model_that_was_deleted_gives_its_numbers_to_other_models(repository):
    promote_run(repository, "good")
    before = resolve("digits@champion", repository)
    client(repository).delete_registered_model("digits")
    promote_run(repository, "best", force=True, reason="lost")
    after = resolve("digits@champion", repository)
    assert before.version == after.version == "1"
    assert before.model_id != after.model_id
