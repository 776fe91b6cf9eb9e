"""The journal of promotions survives lost files, killed processes and other machines."""

import shutil
import signal
import threading

import pytest
from cutting import die_at_commit, forked
from harness import client
from promoting import TRACKING, champion, copied, journal, lines_on_disk, promote_run

from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError
from pipeline.registry.history import history
from pipeline.registry.journal import BrokenError, Entry, Journal, TakenError, parse, path_of


@pytest.fixture
def repository(evaluated_runs, tmp_path):
    return copied(evaluated_runs, tmp_path / "repository")


def without_mlflow(repository, folder):
    """A copy of the repository without its store, because MLflow keeps stores open."""
    lost = shutil.ignore_patterns("mlflow.db*", "mlruns")
    shutil.copytree(repository.root, folder, ignore=lost)
    return Workspace(folder)


def test_the_journal_is_complete_in_both_places_and_survives_the_loss_of_either(repository, tmp_path):
    reasons = ["slow, but right", "with\u2028separators\x85of\x1clines"]
    for name, reason in zip(("good", "best"), reasons, strict=True):
        promote_run(repository, name, reason=reason)
    assert [entry.reason for entry in journal(repository).entries] == reasons
    whole = lines_on_disk(repository)
    assert len(whole) == 2
    path_of(TRACKING, repository, "digits").unlink()
    assert len(journal(repository).entries) == 2
    assert lines_on_disk(repository) == whole
    other = without_mlflow(repository, tmp_path / "other")
    assert [entry.run for entry in journal(other).entries] == [entry.run for entry in parse(whole, "")]
    path_of(TRACKING, other, "digits").unlink()
    assert len(journal(other).entries) == 2


def test_a_champion_that_mlflow_lost_stays_in_the_journal(repository, tmp_path):
    promote_run(repository, None)
    other = without_mlflow(repository, tmp_path / "other")
    with pytest.raises(PipelineError, match="MLflow has no such version"):
        promote_run(other, None)
    assert promote_run(other, None, force=True, reason="lost").version == "1"
    assert [entry.version for entry in journal(other).entries] == ["1", "1"]
    assert "already" in promote_run(other, None).message


@pytest.mark.parametrize("change", ["cut", "edited", "dropped", "swapped"])
def test_a_changed_line_of_the_journal_is_found(repository, change):
    for name in ("good", "same", "best"):
        promote_run(repository, name)
    path = path_of(TRACKING, repository, "digits")
    first, second, third = lines_on_disk(repository)
    lines = {
        "cut": [first, second[:40], third],
        "edited": [first.replace("Ada", "Bob").replace('"forced":false', '"forced":true'), second, third],
        "dropped": [first, third],
        "swapped": [second, first, third],
    }[change]
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(BrokenError, match=r"Line [12] of .*digits\.jsonl"):
        journal(repository)
    with pytest.raises(BrokenError, match="`pipeline verify --repair` restores"):
        promote_run(repository, "worse")
    with pytest.raises(BrokenError, match="`pipeline verify --repair` restores"):
        history("digits", TRACKING, repository)


def entry_of(journal, who):
    rest = {"alias": "champion", "before": None, "version": "1", "run": "r", "run_id": "", "model_sha256": ""}
    return Entry(**journal.next_fields, who=who, action="promote", **rest)


def test_if_two_machines_write_the_same_line_one_is_refused(repository, tmp_path):
    promote_run(repository, "good")
    one = journal(repository)
    other = Journal(one._store, tmp_path / "elsewhere.jsonl", "digits")
    other.append(entry_of(other, "Bob"))
    with pytest.raises(TakenError, match="Run the same command again"):
        one.append(entry_of(one, "Ada"))
    assert [entry.who for entry in journal(repository).entries][1:] == ["Bob"]


def test_the_machine_that_wrote_a_line_first_keeps_it_whatever_the_clocks_say(
    repository, tmp_path, monkeypatch
):
    one = journal(repository)
    other = Journal(one._store, tmp_path / "elsewhere.jsonl", "digits")
    one.append(entry_of(one, "Ada"))
    monkeypatch.setattr("pipeline.registry.journal.now", lambda: 1000)
    with pytest.raises(TakenError, match="Run the same command again"):
        other.append(entry_of(other, "Bob"))
    assert [entry.who for entry in journal(repository).entries] == ["Ada"]
    # The run that the other machine made for its lines is removed, and the one that is left has ended.
    store = client(repository)
    [run] = store.search_runs([store.get_experiment_by_name("promotions").experiment_id])
    assert run.info.status == "FINISHED"


def test_an_alias_that_was_set_by_hand_is_reported_and_corrected(repository, capfd):
    for name in ("good", "same"):
        promote_run(repository, name)
    client(repository).set_registered_model_alias("digits", "champion", "1")
    assert (
        "champion of digits is version 1, but the journal says version 2"
        in history(None, TRACKING, repository)[-1]
    )
    promote_run(repository, "worse")
    assert champion(repository) == ("2", "same")
    assert "somebody set it by hand" in capfd.readouterr().err


def commits_of_a_promotion(repository, folder):
    """Return the number of commits to databases that a promotion makes."""
    counted, path = copied(repository, folder), folder.with_suffix(".txt")

    def count():
        seen = die_at_commit(0)
        promote_run(counted, "good")
        path.write_text(str(len(seen)))

    assert forked(count) == 0
    return int(path.read_text())


def killed_and_repeated(repository, folder, number):
    """Kill a promotion instead of its `number`-th commit, and repeat it."""
    cut = copied(repository, folder)
    assert forked(lambda: (die_at_commit(number), promote_run(cut, "good"))) == -signal.SIGKILL
    promote_run(cut, "good")
    assert champion(cut) == ("1", "good")
    assert len(client(cut).search_model_versions("name = 'digits'")) == 1
    assert [entry.version for entry in journal(cut).entries] == ["1"]
    shutil.rmtree(cut.root)


def test_a_promotion_killed_in_its_last_steps_is_completed_by_the_same_command(repository, tmp_path):
    commits = commits_of_a_promotion(repository, tmp_path / "counted")
    # The version exists, and then the line of the journal, but not the alias.
    for number in (commits - 4, commits - 1):
        killed_and_repeated(repository, tmp_path / f"cut-{number}", number)


@pytest.mark.slow
def test_a_promotion_killed_at_any_step_is_completed_by_the_same_command(repository, tmp_path):
    for number in range(1, commits_of_a_promotion(repository, tmp_path / "counted") + 1):
        killed_and_repeated(repository, tmp_path / f"cut-{number}", number)


def test_two_promotions_at_once_happen_one_after_the_other(repository):
    promote_run(repository, "good")
    done = []
    threads = [
        threading.Thread(target=lambda name=name: done.append(promote_run(repository, name).version))
        for name in ("same", "best")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = journal(repository).entries
    assert [entry.before for entry in entries] == [None, *(entry.version for entry in entries[:-1])]
    assert champion(repository)[0] == entries[-1].version
