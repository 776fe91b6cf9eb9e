"""Promotions and rollbacks in a real store."""

import hashlib
import logging

import numpy as np
import pytest
from harness import client, config, dataset
from promoting import (
    IMAGES,
    LABELS,
    SETTINGS,
    TRACKING,
    champion,
    copied,
    failed,
    journal,
    promote_run,
    run_of,
)

from pipeline.artifacts.processed import write_dataset
from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.config.params import dump
from pipeline.errors import PipelineError
from pipeline.registry.history import history
from pipeline.registry.journal import Entry, path_of
from pipeline.registry.promotion import earlier, rollback
from pipeline.serving.reference import resolve


@pytest.fixture
def repository(evaluated_runs, tmp_path):
    return copied(evaluated_runs, tmp_path / "repository")


def test_the_first_champion_is_registered_once_and_can_be_loaded_by_its_alias(repository):
    first = promote_run(repository, "good", reason="a beginning")
    # Its "Waiting up to 300 seconds" names no reason to wait.
    assert not logging.getLogger("mlflow.store.model_registry.abstract_store").isEnabledFor(logging.INFO)
    assert (first.is_open, first.version) == (True, "1")
    assert champion(repository) == ("1", "good")
    again = promote_run(repository, "good")
    assert (again.is_open, again.version) == (True, "1")
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


def test_a_worse_run_is_refused_and_a_better_one_is_promoted(repository):
    promote_run(repository, "good")
    kept_out = promote_run(repository, "worse")
    assert not kept_out.is_open
    assert kept_out.version is None
    assert "accuracy" in failed(kept_out)
    assert "accuracy" in kept_out.message
    assert champion(repository) == ("1", "good")
    assert promote_run(repository, "best").version == "2"
    assert champion(repository) == ("2", "best")


def test_an_equally_good_run_passes_and_is_not_better(repository):
    promote_run(repository, "good")
    strict = SETTINGS.model_copy(update={"require": "better"})
    assert failed(promote_run(repository, "same", settings=strict)) == ["accuracy"]
    assert promote_run(repository, "same").version == "2"


def test_a_dry_run_changes_nothing(repository):
    found = promote_run(repository, "good", dry_run=True)
    assert found.is_open
    assert found.version is None
    assert client(repository).search_registered_models() == []
    assert not path_of(TRACKING, repository, "digits").exists()


def test_force_passes_a_closed_gate_and_is_recorded_as_such(repository, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # The table is as wide as the terminal.
    assert "forced" not in promote_run(repository, "good", force=True).message
    forced = promote_run(repository, "worse", force=True, reason="a demonstration")
    assert (forced.version, forced.is_open) == ("2", False)
    assert forced.message.endswith("after version 1. The gate was closed: this is recorded as forced.")
    last = journal(repository).entries[-1]
    assert (last.forced, last.reason, last.before) == (True, "a demonstration", "1")
    assert not all(check["passed"] for check in last.checks)
    assert any("promote, forced" in line for line in history(None, TRACKING, repository))


def test_aliases_are_independent(repository):
    promote_run(repository, "good")
    promote_run(repository, "worse", alias="challenger")
    assert champion(repository) == ("1", "good")
    assert champion(repository, "challenger") == ("2", "worse")


def test_without_a_name_the_run_of_the_model_in_the_workspace_is_promoted(repository):
    promote_run(repository, None)
    assert champion(repository) == ("1", "best")


def test_an_unreadable_slice_in_conf_is_refused_before_anything_is_changed(repository):
    for slices, reason in (
        ({"dark": "dark.txt"}, "promotion.slices.dark"),
        ({"dark": "../dark.txt"}, "outside the project"),
        ({"round": ("nought",)}, "no class 'nought'"),
    ):
        with pytest.raises(PipelineError, match=reason):
            promote_run(repository, "good", settings=SETTINGS.model_copy(update={"slices": slices}))
    assert client(repository).search_registered_models() == []


def test_a_slice_given_by_image_numbers_can_refuse_a_run(repository):
    promote_run(repository, "good")
    (repository.root / "first.txt").write_text("".join(f"{number}\n" for number in range(60, 120)))
    slices = SETTINGS.model_copy(
        update={"slices": {"first": "first.txt"}, "margin": 0.2, "max_recall_fall": 1.0}
    )
    assert "slice first" in failed(promote_run(repository, "worse", settings=slices))


def damage_model(repository, name):
    """Flip a bit of the model that MLflow has of a run."""
    [path] = [
        found
        for found in (repository.root / "mlruns").rglob("model.onnx")
        if client(repository).get_logged_model(found.parents[2].name).source_run_id
        == run_id(repository, name)
    ]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_damaged_model_is_not_promoted(repository):
    damage_model(repository, "good")
    assert failed(promote_run(repository, "good")) == ["files", "latency"]


def test_nothing_is_compared_with_a_damaged_champion_and_nothing_goes_back_to_one(repository):
    promote_run(repository, "good")
    damage_model(repository, "good")
    refused = promote_run(repository, "best")
    assert failed(refused) == ["test images"]
    assert "model.onnx of the model of good is damaged" in refused.checks[3].found
    promote_run(repository, "best", force=True)
    with pytest.raises(PipelineError, match=r"Version 1 of digits can't be used: .*model\.onnx .*is damaged"):
        rollback(None, "champion", None, TRACKING, repository)
    assert champion(repository) == ("2", "best")


def test_runs_of_a_version_without_these_files_are_refused_with_the_remedy(repository):
    write_text(repository.params, dump(config()))
    for path in [*(repository.root / "mlruns").rglob("model.onnx"), *repository.root.rglob("run.json")]:
        path.unlink()
    for use in (lambda: promote_run(repository, "good"), lambda: resolve("good", repository)):
        with pytest.raises(PipelineError, match=r"of an older version.*Train it again\.$"):
            use()


def run_id(repository, name):
    [run] = [
        found
        for experiment in client(repository).search_experiments()
        for found in client(repository).search_runs([experiment.experiment_id])
        if found.info.run_name == name
    ]
    return run.info.run_id


def test_on_a_new_test_set_the_champion_is_evaluated_first(repository, model):
    promote_run(repository, "good")
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
    promoted = promote_run(repository, "on others")
    [images_check] = [check for check in promoted.checks if check.name == "test images"]
    assert images_check.passed
    assert images_check.found == "different: the champion was evaluated on these now"
    # The untrained model is right about one image in ten.
    [accuracy] = [check for check in promoted.checks if check.name == "accuracy"]
    assert accuracy.found.startswith("95.00 % against 1") or accuracy.found.startswith("95.00 % against 9")
    assert champion(repository) == ("2", "on others")


def test_a_missing_new_test_set_closes_the_gate(repository):
    promote_run(repository, "good")
    write_dataset(repository, dataset(test="d"))
    run_of(repository, "on others", 60, seed=7)
    write_dataset(repository, dataset(test="e"))
    assert failed(promote_run(repository, "on others")) == ["test images"]


def test_rollback_goes_back_step_by_step_and_history_shows_it(repository, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("good", "same", "best"):
        promote_run(repository, name)
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
    # A model is registered once.
    assert promote_run(repository, "same", force=True, reason="again").version == "2"


@pytest.mark.parametrize(
    ("to", "reason"),
    [("9", "no version 9; its versions: 1"), (None, "before version 1"), ("x", "no version x")],
)
def test_a_rollback_to_a_version_that_was_never_champion_is_refused(repository, to, reason):
    with pytest.raises(PipelineError, match="was ever promoted"):
        rollback(None, "champion", to, TRACKING, repository)
    promote_run(repository, "good")
    with pytest.raises(PipelineError, match=reason):
        rollback(None, "champion", to, TRACKING, repository)
    assert champion(repository) == ("1", "good")


def test_rollback_skips_versions_that_were_rolled_back():
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
    # What was promoted again was champion before, and so was what was rolled back to by its number.
    assert earlier(entries((up, "1"), (up, "2"), (up, "1")), "champion") == "2"
    assert earlier(entries((up, "1"), (down, "3")), "champion") == "1"
    assert earlier(entries((up, "1"), (up, "2")), "other") is None


def test_names_that_mlflow_or_a_file_cannot_have_are_refused(repository):
    for name, alias in (
        ("../x", "champion"),
        ("a/b", "champion"),
        (None, "latest"),
        (None, "v3"),
        (None, "a b"),
    ):
        with pytest.raises(PipelineError, match=r"--name|--as"):
            rollback(name, alias, None, TRACKING, repository)


def test_without_a_model_in_the_workspace_the_registered_model_must_be_named(tmp_path):
    complaint = "no model in models/ whose data set is meant: give --name"
    with pytest.raises(PipelineError, match=complaint):
        rollback(None, "champion", None, TRACKING, Workspace(tmp_path))
    with pytest.raises(PipelineError, match=complaint):
        history(None, TRACKING, Workspace(tmp_path))
