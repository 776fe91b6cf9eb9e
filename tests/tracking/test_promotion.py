"""Promotions, rollbacks and their journal, in a real store."""

import csv
import hashlib
import os
import shutil
import signal
import subprocess
import threading

import numpy as np
import pytest
from cutting import die_at_commit, forked
from harness import client, config, dataset, lay_out, report, train

import promotion_settings
from pipeline.artifacts.processed import write_dataset
from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError
from pipeline.registry.history import history
from pipeline.registry.journal import BrokenError, Entry, Journal, TakenError, parse, path_of
from pipeline.registry.promotion import earlier, promote, rollback
from pipeline.registry.registered import open_journal
from pipeline.tracking import session as tracking

TRACKING = config().tracking
IMAGES = 1200
LABELS = np.random.default_rng(0).integers(0, 10, IMAGES)
SETTINGS = promotion_settings.SETTINGS.model_copy(
    update={"max_calibration_rise": 0.05, "max_recall_fall": 0.1, "max_milliseconds": 1000.0}
)
# Of the test images, how many of the first ones each run gets wrong.
WRONG = {"good": 60, "same": 62, "worse": 120, "best": 20}


def answer(workspace, wrong):
    """The reports of a model that is wrong on the first `wrong` test images."""
    report(workspace, accuracy=1 - wrong / IMAGES)
    predicted = np.where(np.arange(IMAGES) < wrong, (LABELS + 1) % 10, LABELS)
    with workspace.predictions.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("index", "label", "predicted", "confidence", "correct"))
        writer.writerows(
            (index, label, said, "0.950000", int(label == said))
            for index, (label, said) in enumerate(zip(LABELS, predicted, strict=True))
        )


def run_of(workspace, name, wrong, seed, uri=None):
    settings = config(seed=seed, tracking={"run_name": name, "uri": uri, "timeout": 60.0})
    train(settings, workspace)
    with tracking.evaluation(settings, workspace):
        answer(workspace, wrong)


def git(root, *arguments):
    person = {
        f"GIT_{who}_{what}": f"Ada {what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    subprocess.run(["git", "-C", root, *arguments], check=True, capture_output=True, env=os.environ | person)


@pytest.fixture(scope="module")
def template(memory, model, empty_store):
    """A repository with a commit and the evaluated runs of WRONG; the workspace has that of `best`."""
    workspace = Workspace(memory / "promoted")
    lay_out(workspace, model)
    shutil.copy(empty_store, workspace.root / "mlflow.db")
    (workspace.root / ".gitignore").write_text("*\n")
    for arguments in (["init", "-q"], ["add", "-f", ".gitignore"], ["commit", "-qm", "first"]):
        git(workspace.root, *arguments)
    for seed, (name, wrong) in enumerate(WRONG.items()):
        run_of(workspace, name, wrong, seed)
    return workspace


@pytest.fixture
def repository(template, tmp_path):
    shutil.copytree(template.root, tmp_path / "repository")
    return Workspace(tmp_path / "repository")


def give(repository, run, alias="champion", settings=SETTINGS, **options):
    return promote(run, None, alias, settings, TRACKING, repository, **options)


def failed(promoted):
    return [check.name for check in promoted.checks if not check.passed]


def champion(repository, alias="champion"):
    """The version that has the alias, and the name of its run."""
    found = client(repository).get_model_version_by_alias("digits", alias)
    return str(found.version), client(repository).get_run(found.run_id).info.run_name


def journal(repository):
    return open_journal("digits", TRACKING, repository)


def lines_on_disk(repository):
    return path_of(TRACKING, repository, "digits").read_text().splitlines()


# --- promotion ---------------------------------------------------------------------------------


def test_the_first_champion_is_registered_once_and_can_be_loaded_by_its_alias(repository):
    first = give(repository, "good", reason="a beginning")
    assert (first.is_open, first.version) == (True, "1")
    assert champion(repository) == ("1", "good")
    again = give(repository, "good")
    assert again.version == "1"
    assert "already" in again.message
    assert len(client(repository).search_model_versions("name = 'digits'")) == 1
    [entry] = journal(repository).entries
    assert (entry.action, entry.before, entry.version, entry.forced, entry.reason) == (
        *("promote", None, "1", False),
        "a beginning",
    )
    assert {check["name"] for check in entry.checks} >= {
        "run",
        "code",
        "files",
        "accuracy",
        "size",
        "latency",
    }
    version = client(repository).get_model_version("digits", "1")
    assert version.description == "# A model\n"  # As reports/model_card.md has it.
    assert version.tags["pipeline.model_sha256"] == entry.model_sha256

    import mlflow

    images = np.zeros((2, 8, 8), np.uint8)
    assert mlflow.keras.load_model("models:/digits@champion").predict(images, verbose=0).shape == (2, 10)


def test_a_worse_run_is_kept_out_and_a_better_one_follows(repository):
    give(repository, "good")
    kept_out = give(repository, "worse")
    assert not kept_out.is_open
    assert kept_out.version is None
    assert "accuracy" in failed(kept_out)
    assert "accuracy" in kept_out.message
    assert champion(repository) == ("1", "good")
    assert give(repository, "best").version == "2"
    assert champion(repository) == ("2", "best")


def test_a_run_that_is_as_good_passes_and_is_not_better(repository):
    give(repository, "good")
    strict = SETTINGS.model_copy(update={"require": "better"})
    assert failed(give(repository, "same", settings=strict)) == ["accuracy"]
    assert give(repository, "same").version == "2"


def test_a_dry_run_changes_nothing(repository):
    found = give(repository, "good", dry_run=True)
    assert found.is_open
    assert found.version is None
    assert client(repository).search_registered_models() == []
    assert not path_of(TRACKING, repository, "digits").exists()


def test_force_passes_a_closed_gate_and_is_recorded_as_such(repository, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # The table is as wide as the terminal.
    give(repository, "good")
    assert give(repository, "worse", force=True, reason="a demonstration").version == "2"
    last = journal(repository).entries[-1]
    assert (last.forced, last.reason, last.before) == (True, "a demonstration", "1")
    assert not all(check["passed"] for check in last.checks)
    assert any("promote, forced" in line for line in history(None, TRACKING, repository))


def test_aliases_are_apart(repository):
    give(repository, "good")
    give(repository, "worse", alias="challenger")
    assert champion(repository) == ("1", "good")
    assert champion(repository, "challenger") == ("2", "worse")


def test_without_a_name_it_is_the_run_of_the_model_in_the_workspace(repository):
    give(repository, None)
    assert champion(repository) == ("1", "best")


def test_a_slice_of_conf_that_can_not_be_read_is_refused_before_anything_is_changed(repository):
    for slices, reason in (
        ({"dark": "dark.txt"}, "promotion.slices.dark"),
        ({"dark": "../dark.txt"}, "outside the project"),
        ({"round": ("nought",)}, "no class 'nought'"),
    ):
        with pytest.raises(PipelineError, match=reason):
            give(repository, "good", settings=SETTINGS.model_copy(update={"slices": slices}))
    assert client(repository).search_registered_models() == []


def test_a_slice_by_numbers_of_images_keeps_a_run_out(repository):
    give(repository, "good")
    (repository.root / "first.txt").write_text("".join(f"{number}\n" for number in range(60, 120)))
    slices = SETTINGS.model_copy(
        update={"slices": {"first": "first.txt"}, "margin": 0.2, "max_recall_fall": 1.0}
    )
    assert "slice first" in failed(give(repository, "worse", settings=slices))


def test_a_damaged_model_is_kept_out(repository):
    [path] = [
        found
        for found in (repository.root / "mlruns").rglob("model.onnx")
        if client(repository).get_logged_model(found.parents[2].name).source_run_id
        == run_id(repository, "good")
    ]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert failed(give(repository, "good")) == ["files", "latency"]


def run_id(repository, name):
    [run] = [
        found
        for experiment in client(repository).search_experiments()
        for found in client(repository).search_runs([experiment.experiment_id])
        if found.info.run_name == name
    ]
    return run.info.run_id


def test_on_a_new_test_set_the_champion_is_evaluated_first(repository, model):
    give(repository, "good")
    images = np.random.default_rng(3).integers(0, 256, (IMAGES, 64), dtype=np.uint8)
    folder = repository.processed / "test"
    folder.mkdir()
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", LABELS.astype(np.int32))
    found = dataset()
    digests = {
        name: hashlib.sha256((folder / f"{name}.npy").read_bytes()).hexdigest()
        for name in ("images", "labels")
    }
    found.sha256["test"].update(digests)
    write_dataset(repository, found)
    run_of(repository, "on others", 60, seed=7)
    promoted = give(repository, "on others")
    [images_check] = [check for check in promoted.checks if check.name == "test images"]
    assert images_check.passed
    assert images_check.found == "different: the champion was evaluated on these now"
    # The untrained model is right one time in ten.
    [accuracy] = [check for check in promoted.checks if check.name == "accuracy"]
    assert accuracy.found.startswith("95.00 % against 1") or accuracy.found.startswith("95.00 % against 9")
    assert champion(repository) == ("2", "on others")


def test_a_new_test_set_that_is_not_there_closes_the_gate(repository):
    give(repository, "good")
    write_dataset(repository, dataset(test="d"))
    run_of(repository, "on others", 60, seed=7)
    write_dataset(repository, dataset(test="e"))
    assert failed(give(repository, "on others")) == ["test images"]


# --- rollback ----------------------------------------------------------------------------------


def test_rollback_goes_back_step_by_step_and_history_shows_it(repository, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("good", "same", "best"):
        give(repository, name)
    assert "version 2 again (same)" in rollback(None, "champion", None, TRACKING, repository)
    rollback(None, "champion", None, TRACKING, repository, reason="users complained")
    assert champion(repository) == ("1", "good")
    with pytest.raises(PipelineError, match="before version 1"):
        rollback(None, "champion", None, TRACKING, repository)
    rollback(None, "champion", "3", TRACKING, repository)
    assert champion(repository) == ("3", "best")
    *_, last, _empty, now = history(None, TRACKING, repository)
    assert "1 → 3" in last
    assert "rollback" in last
    assert now == f"champion: version 3 ({journal(repository).entries[-1].run})."


@pytest.mark.parametrize(
    ("to", "reason"),
    [("9", "no version 9; its versions: 1"), (None, "before version 1"), ("x", "no version x")],
)
def test_what_can_not_be_gone_back_to_is_told(repository, to, reason):
    with pytest.raises(PipelineError, match="was ever promoted"):
        rollback(None, "champion", to, TRACKING, repository)
    give(repository, "good")
    with pytest.raises(PipelineError, match=reason):
        rollback(None, "champion", to, TRACKING, repository)
    assert champion(repository) == ("1", "good")


def test_what_was_rolled_back_from_is_passed_over():
    def entries(*steps):
        return [
            Entry(number, "", "", action, "champion", None, version, "", "", "")
            for number, (action, version) in enumerate(steps, 1)
        ]

    up, down = "promote", "rollback"
    assert earlier([], "champion") is None
    assert earlier(entries((up, "1")), "champion") is None
    assert earlier(entries((up, "1"), (up, "2")), "champion") == "1"
    assert earlier(entries((up, "1"), (up, "2"), (up, "3"), (down, "2")), "champion") == "1"
    assert earlier(entries((up, "1"), (up, "2"), (down, "1"), (up, "3")), "champion") == "1"
    assert earlier(entries((up, "1"), (up, "2")), "other") is None


# --- the journal -------------------------------------------------------------------------------


def without_mlflow(repository, folder):
    """A copy of the repository without its store, because MLflow keeps stores open."""
    lost = shutil.ignore_patterns("mlflow.db*", "mlruns")
    shutil.copytree(repository.root, folder, ignore=lost)
    return Workspace(folder)


def test_it_is_whole_in_both_places_and_survives_the_loss_of_either(repository, tmp_path):
    for name in ("good", "best"):
        give(repository, name)
    whole = lines_on_disk(repository)
    assert len(whole) == 2
    path_of(TRACKING, repository, "digits").unlink()
    assert len(journal(repository).entries) == 2
    assert lines_on_disk(repository) == whole
    other = without_mlflow(repository, tmp_path / "other")
    assert [entry.run for entry in journal(other).entries] == [entry.run for entry in parse(whole, "")]
    path_of(TRACKING, other, "digits").unlink()
    assert len(journal(other).entries) == 2


def test_a_champion_that_mlflow_lost_is_not_forgotten(repository, tmp_path):
    give(repository, None)
    other = without_mlflow(repository, tmp_path / "other")
    with pytest.raises(PipelineError, match="MLflow has no such version"):
        give(other, None)
    assert give(other, None, force=True, reason="lost").version == "1"
    assert [entry.version for entry in journal(other).entries] == ["1", "1"]
    assert "already" in give(other, None).message


@pytest.mark.parametrize("change", ["cut", "edited", "dropped", "swapped"])
def test_a_changed_line_is_found(repository, change):
    for name in ("good", "same", "best"):
        give(repository, name)
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
    with pytest.raises(BrokenError):
        give(repository, "worse")


def entry_of(journal, who):
    rest = {"alias": "champion", "before": None, "version": "1", "run": "r", "run_id": "", "model_sha256": ""}
    return Entry(**journal.next_fields, who=who, action="promote", **rest)


def test_of_two_that_write_the_same_line_on_different_machines_one_is_refused(repository, tmp_path):
    give(repository, "good")
    one = journal(repository)
    other = Journal(one._store, tmp_path / "elsewhere.jsonl", "digits")
    other.append(entry_of(other, "Bob"))
    with pytest.raises(TakenError, match="Run the same command again"):
        one.append(entry_of(one, "Ada"))
    assert [entry.who for entry in journal(repository).entries][1:] == ["Bob"]


def test_the_first_line_is_of_who_was_first_whatever_the_clocks_say(repository, tmp_path, monkeypatch):
    one = journal(repository)
    other = Journal(one._store, tmp_path / "elsewhere.jsonl", "digits")
    one.append(entry_of(one, "Ada"))
    monkeypatch.setattr("pipeline.registry.journal.now", lambda: 1000)
    with pytest.raises(TakenError, match="Run the same command again"):
        other.append(entry_of(other, "Bob"))
    assert [entry.who for entry in journal(repository).entries] == ["Ada"]


def test_an_alias_that_was_set_by_hand_is_shown_and_put_back(repository, capfd):
    for name in ("good", "same"):
        give(repository, name)
    client(repository).set_registered_model_alias("digits", "champion", "1")
    assert "version 1 in MLflow, but the journal says 2" in history(None, TRACKING, repository)[-1]
    give(repository, "worse")
    assert champion(repository) == ("2", "same")
    assert "somebody set it by hand" in capfd.readouterr().err


# --- cut and at once ---------------------------------------------------------------------------


def commits_of_a_promotion(repository, folder):
    """How many there are."""
    counted, path = copied(repository, folder), folder.with_suffix(".txt")

    def count():
        seen = die_at_commit(0)
        give(counted, "good")
        path.write_text(str(len(seen)))

    assert forked(count) == 0
    return int(path.read_text())


def copied(repository, folder):
    shutil.copytree(repository.root, folder)
    return Workspace(folder)


def killed_and_repeated(repository, folder, number):
    """Kill a promotion instead of its `number`-th commit, and repeat it."""
    cut = copied(repository, folder)
    assert forked(lambda: (die_at_commit(number), give(cut, "good"))) == -signal.SIGKILL
    give(cut, "good")
    assert champion(cut) == ("1", "good")
    assert len(client(cut).search_model_versions("name = 'digits'")) == 1
    assert [entry.version for entry in journal(cut).entries] == ["1"]
    shutil.rmtree(cut.root)


def test_a_promotion_that_is_killed_at_its_last_steps_is_completed_by_the_same_command(repository, tmp_path):
    commits = commits_of_a_promotion(repository, tmp_path / "counted")
    # The version is there, the journal's line is, the alias is not.
    for number in (commits - 4, commits - 1):
        killed_and_repeated(repository, tmp_path / f"cut-{number}", number)


@pytest.mark.slow
def test_a_promotion_that_is_killed_anywhere_is_completed_by_the_same_command(repository, tmp_path):
    for number in range(1, commits_of_a_promotion(repository, tmp_path / "counted") + 1):
        killed_and_repeated(repository, tmp_path / f"cut-{number}", number)


def test_two_at_once_end_with_one_order(repository):
    give(repository, "good")
    done = []
    threads = [
        threading.Thread(target=lambda name=name: done.append(give(repository, name).version))
        for name in ("same", "best")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = journal(repository).entries
    assert [entry.before for entry in entries] == [None, *(entry.version for entry in entries[:-1])]
    assert champion(repository)[0] == entries[-1].version


# --- the verbs ---------------------------------------------------------------------------------


def test_names_that_mlflow_or_a_file_can_not_take_are_refused(repository):
    from pipeline.registry.verbs import rollback as verb

    for name, alias in (
        ("../x", "champion"),
        ("a/b", "champion"),
        (None, "latest"),
        (None, "v3"),
        (None, "a b"),
    ):
        with pytest.raises(PipelineError, match=r"--name|--as"):
            verb(repository, name, alias, None, "")
