"""A store that was lost with its registered versions: what the commands say, and what they do not change."""

from dataclasses import replace

import pytest

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.errors import PipelineError
from pipeline.registry.history import history
from pipeline.registry.journal import Entry, path_of
from pipeline.registry.promotion import rollback
from pipeline.registry.registered import lost_version, registered
from pipeline.verification.cache import Cache
from pipeline.verification.repair import repair
from pipeline.verification.runs import check_registry

TRACKING = TrackingSection(uri=None, experiment="tests", run_name=None, timeout=5.0)


@pytest.fixture
def repository(tmp_path):
    """A repository whose journal says that version 1 is champion, and whose MLflow has no version."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    workspace = Workspace(tmp_path)
    with registered("letters", TRACKING, workspace) as model:
        model.journal.ensure_run()
        who = {"who": "me", "action": "promote", "alias": "champion", "before": None, "version": "1"}
        made = {"run": "letters-mlp-4bf76b", "run_id": "4bf76b", "model_sha256": "ab" * 32}
        model.journal.append(Entry(**model.journal.next_fields, **who, **made))
    return workspace


def test_rollback_to_a_lost_version_is_refused_and_the_journal_is_kept(repository):
    for to in ("1", None):
        with pytest.raises(PipelineError) as refused:
            rollback("letters", "champion", to, TRACKING, repository)
        if to:
            assert "MLflow has no such version" in str(refused.value)
            assert "`pipeline promote letters-mlp-4bf76b --name letters --force --reason lost`" in str(
                refused.value
            )

    journal = path_of(TRACKING, repository, "letters")
    before = journal.read_bytes()
    problems = check_registry(TRACKING, repository)
    # The next promotion would not mend this, as it does an alias that was set by hand.
    [said] = [problem.text for problem in problems]
    assert "MLflow has no such version" in said
    assert history("letters", TRACKING, repository)[-1] == said
    assert repair(problems, Cache(repository), TRACKING, repository.root / "downloaded") == []
    assert journal.read_bytes() == before
    assert not journal.with_suffix(".damaged").exists()


def test_the_advice_for_a_lost_version_names_the_model_and_the_alias(repository):
    with registered("letters", TRACKING, repository) as model:
        entry = replace(model.journal.entries[0], alias="tried")
    command = "pipeline promote letters-mlp-4bf76b --name 'my letters' --as tried --force --reason lost"
    assert f"`{command}`" in lost_version(entry, "my letters")


def test_a_damaged_journal_is_restored_from_the_copy_in_mlflow(repository):
    journal = path_of(TRACKING, repository, "letters")
    before = journal.read_text()
    journal.write_text(before.replace('"who":"me"', '"who":"you"'))
    problems = check_registry(TRACKING, repository)
    [said] = repair(problems, Cache(repository), TRACKING, repository.root / "downloaded")
    assert said.startswith("journal of letters: restored from MLflow's copy")
    assert journal.read_text() == before


def test_lines_that_mlflow_lacks_are_counted_and_sent_by_the_suggested_command(repository):
    with registered("letters", TRACKING, repository) as model:
        fields = model.journal.next_fields
        entry = replace(model.journal.entries[0], reason="again", **fields)
    with path_of(TRACKING, repository, "letters").open("a") as file:
        file.write(f"{entry.dump()}\n")
    [said] = [problem.text for problem in check_registry(TRACKING, repository)]
    assert "in MLflow lacks 1 line at the end of" in said
    assert "`pipeline history --name 'letters'` restores" in said
    history("letters", TRACKING, repository)
    assert "at the end" not in "".join(problem.text for problem in check_registry(TRACKING, repository))
