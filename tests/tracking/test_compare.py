"""Two runs in a real store are found by the names that people use, and compared."""

import shutil
from dataclasses import asdict, replace

import pytest
from harness import BEST, client, config, dataset, epochs, lay_out, report, runs, train
from sweep_runs import SWEEP, known, of, plan, sent

from pipeline.artifacts.processed import write_dataset
from pipeline.artifacts.workspace import Workspace
from pipeline.config.params import dump
from pipeline.errors import PipelineError
from pipeline.results.compare import compare
from pipeline.results.download import find_training
from pipeline.results.lookup import look_up, training_id
from pipeline.tracking import session as tracking
from pipeline.tracking.database import local_folder

LABELS = "abcde" * 12
# On how many of the first test images each run is wrong, and on how many of the last.
WRONG = {"worse": (20, 2), "better": (5, 2), "better-not": (4, 3)}


@pytest.fixture(scope="module")
def repository(memory, model, empty_store):
    """A repository with the evaluated runs of WRONG, and `raw`, which was never evaluated."""
    workspace = lay_out(Workspace(memory / "compared"), model)
    shutil.copy(empty_store, workspace.root / "mlflow.db")
    for seed, (name, (first, last)) in enumerate(WRONG.items()):
        settings = config(seed=seed, tracking={"run_name": name})
        train(settings, workspace)
        with tracking.evaluation(settings, workspace):
            report(workspace, accuracy=1 - (first + last) / len(LABELS))
            predicted = "x" * first + LABELS[first:-last] + "x" * last
            rows = [f"{label},{guess}" for label, guess in zip(LABELS, predicted, strict=True)]
            workspace.predictions.write_text("\n".join(["label,predicted", *rows]) + "\n")
    train(config(seed=9, tracking={"run_name": "raw"}), workspace)
    return workspace


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def shown(repository, *names):
    *table, empty, verdict = compare(names, config().tracking, repository)
    assert empty == ""
    rows = {line.split("  ")[0]: " ".join(line.split()[1:]) for line in table[1:]}
    return table[0].split(), rows, verdict


def test_differences_are_shown_and_each_result_with_its_interval(repository):
    names, rows, _ = shown(repository, "worse", "better")
    assert names == ["worse", "better"]
    assert rows["seed"] == "0 1"
    assert not any(key.startswith("tracking.") for key in rows)
    assert "train.learning_rate" not in rows
    assert rows["test_accuracy"] == "63.33 % (50.00 to 50.00) 88.33 % (50.00 to 50.00)"
    assert rows["test_nll"] == "0.5000 0.5000"


def test_validation_results_are_those_of_the_kept_weights(repository):
    _, rows, _ = shown(repository, "worse", "better")
    kept = f"{100 * epochs()[BEST - 1].val_accuracy:.2f} %"
    assert rows["val_accuracy"].count(kept) == 2


def test_training_results_are_those_of_the_kept_weights(repository):
    # As `load_run` gives it: MLflow's own figures are of the last epoch, which is another one here.
    [found] = look_up(["worse"], config().tracking, repository)
    kept, last = epochs()[BEST - 1], epochs()[-1]
    assert kept != last
    of_kept = {key: value for key, value in asdict(kept).items() if key != "epoch"}
    assert {key: found.metrics[key] for key in of_kept} == of_kept


def test_validation_results_have_an_interval(repository):
    _, rows, _ = shown(repository, "worse", "better")
    # Wilson's interval for 94 of 144.
    assert rows["val_accuracy"].startswith("65.00 % (57.20 to 72.57)")


def test_a_difference_beyond_chance_is_called_a_difference(repository):
    _, _, verdict = shown(repository, "worse", "better")
    assert "Of 60 test images, 0 only worse gets right and 15 only better (p = 6.1e-05" in verdict
    assert verdict.endswith("better is better, by more than chance would explain.")
    assert shown(repository, "better", "worse")[2].endswith(
        "better is better, by more than chance would explain."
    )


def test_a_difference_within_chance_is_not_called_a_difference(repository):
    _, _, verdict = shown(repository, "better", "better-not")
    assert "1 only better gets right and 1 only better-not (p = 1," in verdict
    assert verdict.endswith("neither is shown to be better.")
    with pytest.raises(PipelineError, match="There is only one run to compare"):
        compare(["better", "better"], config().tracking, repository)


def test_runs_with_different_test_images_are_not_paired(repository):
    [run] = [run for run in runs(repository) if run.info.run_name == "better-not"]
    client(repository).set_tag(run.info.run_id, "data.test", "another")
    try:
        assert "different test images" in shown(repository, "better", "better-not")[2]
    finally:
        client(repository).set_tag(run.info.run_id, "data.test", run.data.tags["data.test"])


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("abda", "0 only better gets right and 2 only renamed"),  # c is now d
        ("aaca", "different test images"),  # two classes became one
        ("abcd", "different test images"),  # one class became two
        ("abc", "different test images"),
    ],
)
def test_after_a_class_was_renamed_the_test_images_are_still_the_same(repository, monkeypatch, labels, said):
    [before] = look_up(["better"], config().tracking, repository)
    before = replace(before, predictions=(("a", "a"), ("b", "a"), ("c", "b"), ("a", "a")))
    after = replace(before, name="renamed", predictions=tuple(zip(labels, labels, strict=True)))
    monkeypatch.setattr("pipeline.results.compare.look_up", lambda *_: [before, after])
    assert said in compare(["better", "renamed"], config().tracking, repository)[-1]


def test_runs_with_different_validation_images_are_not_compared_by_them(repository):
    said = "Their validation images differ: val_accuracy and val_loss can't be compared."
    assert said not in compare(["better", "better-not"], config().tracking, repository)
    [run] = [run for run in runs(repository) if run.info.run_name == "better-not"]
    client(repository).set_tag(run.info.run_id, "data.validation", "another")
    try:
        assert said in compare(["better", "better-not"], config().tracking, repository)
    finally:
        client(repository).set_tag(run.info.run_id, "data.validation", run.data.tags["data.validation"])


def test_a_run_is_found_by_its_name_its_ids_and_their_beginnings(repository):
    [run] = [run for run in runs(repository) if run.info.run_name == "better"]
    names = ["better", run.info.run_id, run.info.run_id[:9], run.data.tags["pipeline.id"][:9]]
    assert {found.name for found in look_up(names, config().tracking, repository)} == {"better"}
    assert [found.name for found in look_up(["wor"], config().tracking, repository)] == ["worse"]


def test_a_renamed_run_is_found_by_both_names(repository):
    [run] = [run for run in runs(repository) if run.info.run_name == "better-not"]
    client(repository).update_run(run.info.run_id, name="mine")
    try:
        for name in ("mine", "better-not"):
            assert [found.name for found in look_up([name], config().tracking, repository)] == ["mine"]
            number = training_id(name, config().tracking, repository)
            assert number == run.data.tags["pipeline.id"]
    finally:
        client(repository).update_run(run.info.run_id, name="better-not")


def test_more_than_two_runs_are_tested_against_the_first_with_a_correction(repository):
    lines = compare(("worse", "better", "better-not"), config().tracking, repository)
    verdicts = lines[lines.index("") + 1 :]
    assert len(verdicts) == 2
    assert "15 only better (p = 0.00012, McNemar's exact test, times 2 for as many tests)" in verdicts[0]


@pytest.mark.parametrize("columns", [40, 60, 120])
def test_the_table_fits_the_terminal_and_loses_no_value(repository, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = compare(("worse", "better", "better-not"), config().tracking, repository)
    table = lines[: len(lines) - 3]
    assert max(map(len, table)) <= columns
    assert all(any(name in line for line in table) for name in ("worse", "better", "better-not"))
    # Lines of a cell that was folded lie below each other.
    assert sum("63.33" in line for line in table) == 1


def test_numbers_of_evaluations_with_other_settings_are_left_out(repository):
    settings = config(seed=9, evaluate={"calibration_bins": 7}, tracking={"run_name": "raw"})
    with tracking.evaluation(settings, repository):
        report(repository)
        rows = [f"{label},{label}" for label in LABELS]
        repository.predictions.write_text("\n".join(["label,predicted", *rows]) + "\n")
        repository.params.write_text(dump(settings))
    try:
        _, rows, verdict = shown(repository, "worse", "raw")
        assert rows["evaluate.calibration_bins"].endswith(" 7")
        assert "test_accuracy" in rows
        assert "test_ece" not in rows
        assert "only raw gets right" in verdict or "only raw (p" in verdict
    finally:
        [run] = [run for run in runs(repository) if run.info.run_name == "raw"]
        client(repository).delete_tag(run.info.run_id, "pipeline.reports_sha256")


def test_the_test_images_are_those_of_the_evaluation_not_those_of_the_training(tmp_path, empty_store):
    """A label was corrected: the old run is evaluated on the new images, and a new run is trained."""
    workspace = lay_out(Workspace(tmp_path))
    shutil.copy(empty_store, workspace.root / "mlflow.db")

    def evaluated(settings):
        with tracking.evaluation(settings, workspace):
            report(workspace)
            workspace.predictions.write_text("label,predicted\na,a\nb,b\n")

    def pinned(name, labels):
        pins = config().data.model_dump()["sha256"] | {"test_labels": 64 * labels}
        return config(seed=int(name == "new"), data={"sha256": pins}, tracking={"run_name": name})

    train(pinned("old", "c"), workspace)
    evaluated(pinned("old", "c"))
    write_dataset(workspace, dataset(test="d"))
    evaluated(pinned("old", "d"))
    train(pinned("new", "d"), workspace)
    evaluated(pinned("new", "d"))
    _, rows, verdict = shown(workspace, "old", "new")
    assert rows["data.sha256.test_labels"] == "cccccccc dddddddd"
    assert "different test images" in verdict
    _, rows, verdict = shown(workspace, "old evaluated", "new")
    assert "data.sha256.test_labels" not in rows
    [found] = look_up(["old evaluated"], config().tracking, workspace)
    assert "data.sha256.test_labels" not in found.params
    assert "right on the same of 2 test images" in verdict


def test_a_sweeps_name_stands_for_its_best_trials(repository):
    made = {run.info.run_name: run for run in runs(repository)}
    trials = [
        known(seed, made[name].data.tags["pipeline.id"], seed=str(seed))
        for seed, name in enumerate(("worse", "better", "raw"))
    ]
    parent = sent(of(*trials), plan(repository, SWEEP.id), repository)
    try:
        found = look_up([SWEEP.name], config().tracking, repository)
    finally:
        client(repository).delete_run(parent)
    assert {run.name for run in found} == {"worse", "better"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "no run 'nothing'; the latest are: raw, better-not, better, worse."),
        ("", "name of the run is empty"),
        ("raw", r"The run raw \(FINISHED\) was not evaluated"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_in_a_sentence(repository, name, said):
    with pytest.raises(PipelineError, match=said):
        compare(("better", name), config().tracking, repository)


@pytest.mark.parametrize("damage", ["label,predicted: 1\n", "\xff", None], ids=["cut", "bytes", "missing"])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("predictions.csv", lambda repository: compare(["worse", "better"], config().tracking, repository)),
        ("history.csv", lambda repository: compare(["worse", "better"], config().tracking, repository)),
        ("config/params.yaml", lambda repository: find_training("better", config().tracking, repository)),
    ],
)
def test_a_file_that_mlflow_lost_or_changed_is_named_with_the_remedy(repository, name, read, damage):
    [run] = [run for run in runs(repository) if run.info.run_name == "better"]
    path = local_folder(run.info.artifact_uri) / name
    content = path.read_bytes()
    path.unlink()
    if damage:
        path.write_text(damage, encoding="latin-1")
    try:
        with pytest.raises(PipelineError, match=f"{name} of the run better is .*verify --repair"):
            read(repository)
    finally:
        path.write_bytes(content)


def test_an_unreachable_server_is_reported_in_a_sentence(repository):
    settings = config(tracking={"uri": "http://127.0.0.1:9"}).tracking
    with pytest.raises(PipelineError, match=r"MLflow at http://127\.0\.0\.1:9 can't be read"):
        compare(("better", "worse"), settings, repository)
