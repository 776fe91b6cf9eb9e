"""Registered models, and the experiment of their journals, that somebody changed in MLflow by hand."""

import pytest
from harness import client, runs
from promoting import TRACKING, copied, journal, promote_run

from pipeline.errors import PipelineError
from pipeline.registry.history import history
from pipeline.registry.journal import EXPERIMENT, JOURNAL_TAG
from pipeline.registry.promotion import rollback
from pipeline.results.download import download_run
from pipeline.tracking.mlflow_run import ID_TAG
from pipeline.verification.runs import check_registry


@pytest.fixture
def repository(evaluated_runs, tmp_path):
    repository = copied(evaluated_runs, tmp_path / "repository")
    for name in ("good", "best"):
        promote_run(repository, name)
    return repository


def test_the_deleted_experiment_of_the_journals_can_only_be_restored(repository):
    store = client(repository)
    experiment = store.get_experiment_by_name(EXPERIMENT).experiment_id
    store.delete_experiment(experiment)
    with pytest.raises(PipelineError) as refused:
        history("digits", TRACKING, repository)
    command = f"`mlflow experiments restore --experiment-id {experiment}`"
    # The configuration can't name another one.
    assert str(refused.value) == f"The MLflow experiment 'promotions' was deleted: restore it with {command}."
    store.restore_experiment(experiment)
    assert len(journal(repository).entries) == 2


def test_a_renamed_model_keeps_its_journal_which_the_old_name_does_not_continue(repository):
    client(repository).rename_registered_model("digits", "small digits")
    asking = [
        lambda: promote_run(repository, "same"),
        lambda: rollback(None, "champion", None, TRACKING, repository),
        lambda: history(None, TRACKING, repository),
    ]
    for ask in asking:
        with pytest.raises(
            PipelineError, match=r"digits was renamed to small digits .* --name 'small digits'"
        ):
            ask()
    assert check_registry(TRACKING, repository) == []
    assert "version 1 again (good), after 2" in rollback(
        "small digits", "champion", None, TRACKING, repository
    )
    client(repository).rename_registered_model("small digits", "digits")
    assert [entry.version for entry in journal(repository).entries] == ["1", "2", "1"]


def test_a_param_or_a_tag_set_by_hand_does_not_damage_the_journal(repository):
    store = client(repository)
    named = store.get_registered_model("digits").tags[JOURNAL_TAG]
    store.log_param(named, "note", "mine")
    [other] = [run.info.run_id for run in runs(repository) if run.info.run_name == "worse"]
    store.set_registered_model_tag("digits", JOURNAL_TAG, other)
    rollback(None, "champion", None, TRACKING, repository)
    assert [entry.version for entry in journal(repository).entries] == ["1", "2", "1"]
    assert "000003" in store.get_run(named).data.params
    assert "000003" not in store.get_run(other).data.params


def test_a_version_whose_run_lost_its_id_is_refused_with_the_remedy(repository, tmp_path):
    [run] = [run for run in runs(repository) if run.info.run_name == "best"]
    client(repository).delete_tag(run.info.run_id, ID_TAG)
    with pytest.raises(PipelineError, match=r"run best has lost its tag pipeline\.id: set it there"):
        download_run("digits@champion", TRACKING, repository, tmp_path)


def test_verify_passes_over_models_that_no_promotion_made(repository):
    store = client(repository)
    # The first can't be searched for, and the name of the second is too long for a file.
    for name in ('it\'s "mine"', 240 * "long "):
        store.create_registered_model(name)
    assert check_registry(TRACKING, repository) == []
    # A version without a run.
    version = store.create_model_version("digits", "file:///nowhere").version
    store.set_registered_model_alias("digits", "champion", version)
    [problem] = check_registry(TRACKING, repository)
    assert f"champion of digits is version {version}, but the journal says version 2" in problem.text
