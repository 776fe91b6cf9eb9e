"""The stage evaluate writes consistent reports."""

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt
from sklearn.metrics import log_loss
from stripes import HISTORY, TEST_IMAGES, record_test_split, reports, rows_of, with_settings

from pipeline.artifacts.onnx_file import Unlike, load
from pipeline.artifacts.processed import read_dataset, read_split, write_split
from pipeline.artifacts.workspace import Workspace
from pipeline.config.params import dump, view
from pipeline.stages import evaluate


@pytest.fixture(scope="module")
def evaluated(config, stripes: Path) -> Workspace:
    """The same workspace, evaluated; tests must not change it."""
    workspace = Workspace(Path(shutil.copytree(stripes, stripes.with_name("evaluated"))))
    run(config, workspace)
    return workspace


def run(config, workspace):
    evaluate.run(view(config, ["evaluate"]), workspace)


def drop_second_class(workspace, after=0):
    """Drop the test images of the second class, except for those among the first `after` images."""
    images, labels = (np.array(part) for part in read_split(workspace, "test"))
    kept = np.flatnonzero((labels != 1) | (np.arange(len(labels)) < after))
    write_split(workspace, "test", [images[kept]], (len(kept), images.shape[1]), labels[kept])
    record_test_split(workspace)


def test_the_reports_are_consistent(evaluated):
    workspace = evaluated
    metrics = json.loads(workspace.metrics.read_text())
    _, labels = read_split(workspace, "test")
    saved = np.load(workspace.probabilities)
    table = rows_of(workspace.predictions)
    names = ("zero", "one", "two")

    assert saved.dtype == np.float32
    assert saved.shape == (TEST_IMAGES, 3)
    assert metrics["test_images"] == len(table) == TEST_IMAGES
    assert metrics["test_errors"] == sum(row["correct"] == "0" for row in table) > 0
    assert metrics["test_accuracy"] == pytest.approx(1 - metrics["test_errors"] / TEST_IMAGES)
    assert metrics["test_accuracy_low"] < metrics["test_accuracy"] < metrics["test_accuracy_high"]
    exact = saved.astype(np.float64)
    expected = log_loss(labels, exact / exact.sum(axis=1, keepdims=True))
    assert metrics["test_nll"] == pytest.approx(expected, rel=1e-12)
    assert [row["label"] for row in table] == [names[label] for label in labels]
    assert [row["predicted"] for row in table] == [names[best] for best in saved.argmax(axis=1)]
    assert [float(row["confidence"]) for row in table] == pytest.approx(saved.max(axis=1), abs=1e-6)
    by_class = rows_of(workspace.per_class)
    assert [row["class"] for row in by_class] == list(names)
    assert [int(row["support"]) for row in by_class] == np.bincount(labels).tolist()
    assert rows_of(workspace.label_issues) == []
    assert {path.suffix for path in workspace.figures.iterdir()} == {".png"}
    assert metrics["weights_sha256"] == load(workspace.onnx).description.weights_sha256


def test_the_card_describes_the_training_and_leaves_out_what_it_did_not_use(evaluated):
    card = evaluated.model_card.read_text()
    metrics = json.loads(evaluated.metrics.read_text())
    _, front, text = card.split("---\n", 2)
    [model] = yaml.safe_load(front)["model-index"]
    [result] = model["results"]
    assert result["metrics"][0]["value"] == pytest.approx(metrics["test_accuracy"], abs=1e-6)
    assert result["metrics"][0]["confidence_interval_95"][0] < metrics["test_accuracy"]
    headings = re.findall("^## (.+)$", text, re.MULTILINE)
    assert headings == [
        *("What it is for", "Data", "Training", "Results"),
        *("Worst confusions", "Limits", "Use", "Reproduce"),
    ]
    for picture in re.findall(r"!\[.+\]\((.+)\)", text):
        assert (evaluated.model_card.parent / picture).is_file()
    none = re.search(r"^\| none \| (\S+) % \| (\S+) % to (\S+) % \|", text, re.MULTILINE)
    assert float(none[1]) == pytest.approx(100 * metrics["test_accuracy"], abs=3)
    assert "| architecture | mlp |\n| parameters | 60 |" in text
    assert "| epochs, of which the best is kept | 3 |\n| best epoch | 2 |" in text
    assert "| seed | 0 |" in text
    assert "augmentation" not in text
    assert "None" not in text


def test_the_card_of_a_jax_model_names_its_devices_and_what_reproduction_needs(config, evaluated, workspace):
    plain = evaluated.model_card.read_text()
    assert "JAX" not in plain
    assert "computed with" not in plain
    train = config.train.model_copy(update={"backend": "jax", "devices": 2, "precision": "bfloat16"})
    described = json.loads(workspace.run.read_text())
    described["config"]["train"] = train.model_dump(mode="json")
    workspace.run.write_text(json.dumps(described))
    run(config, workspace)
    card = workspace.model_card.read_text()
    assert "| computed with | JAX on 2 CPUs, in bfloat16 |" in card
    assert "That takes JAX on 2 CPUs, in bfloat16: see docs/gpu.md." in card.split("## Reproduce")[1]


def test_without_a_robustness_test_the_card_has_no_limits(config, workspace):
    run(with_settings(config, robustness=0), workspace)
    assert "## Limits" not in workspace.model_card.read_text()


def test_class_names_cannot_break_the_tables_of_the_card(config, workspace, capsys):
    dataset = json.loads(workspace.dataset.read_text())
    dataset["classes"] = ["zero", "a|b", "two\nlines"]
    workspace.dataset.write_text(json.dumps(dataset))
    drop_second_class(workspace, after=300)
    run(config, workspace)
    card = workspace.model_card.read_text()
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)
    assert any(line.startswith(r"| a\|b |") for line in rows)
    assert any(line.startswith(r"| 'two\nlines' |") for line in rows)
    assert r"zero, a|b, 'two\nlines'." in card
    [said] = [line for line in capsys.readouterr().out.splitlines() if "lowest recall" in line]
    assert r"'two\nlines'" in said


def test_the_card_says_which_test_images_were_also_trained_on(config, evaluated, workspace):
    dataset = json.loads(workspace.dataset.read_text())
    dataset["duplicates"] |= {"train+test": 3, "validation+test": 1200}
    workspace.dataset.write_text(json.dumps(dataset))
    run(config, workspace)
    found = "with which nothing was trained or chosen, except 3 equal to training images and 1,200 equal to "
    assert f"{found}validation images:" in workspace.model_card.read_text()
    assert "with which nothing was trained or chosen:" in evaluated.model_card.read_text()


def test_the_card_shows_class_names_as_they_are_whatever_they_mean_in_markdown(config, workspace):
    names = ["<b>*x* _y_ `z`", r"[a](b) $c^2$ ~~d~~ \_", "snake_case &lt; R&D"]
    dataset = json.loads(workspace.dataset.read_text()) | {"classes": names}
    workspace.dataset.write_text(json.dumps(dataset))
    run(config, workspace)
    card = workspace.model_card.read_text()
    shown = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(card)
    for name in names:
        assert f"<td>{html.escape(name)}</td>" in shown
    assert html.escape(", ".join(names)) in shown
    assert "snake_case" in card
    assert r"\$c^2\$" in card


def test_metrics_of_the_training_are_those_of_its_best_epoch(evaluated):
    metrics = json.loads(evaluated.metrics.read_text())
    assert (metrics["train_accuracy"], metrics["val_accuracy"], metrics["val_loss"]) == (0.9, 0.91, 0.3)
    assert metrics["generalisation_gap"] == 0.9 - metrics["test_accuracy"]


def test_the_names_of_the_metrics_begin_with_their_split_and_are_few(evaluated):
    metrics = json.loads(evaluated.metrics.read_text())
    assert {name.split("_")[0] for name in metrics} == {"test", "val", "train", "generalisation", "weights"}
    assert all(isinstance(value, int | float | str) for value in metrics.values())
    assert len(metrics) <= 13


def test_if_classes_are_rare_macro_f1_and_the_lowest_recalls_are_printed(config, workspace, capsys):
    run(config, workspace)
    assert "macro F1" not in capsys.readouterr().out
    drop_second_class(workspace, after=300)
    run(config, workspace)
    rows = sorted(rows_of(workspace.per_class), key=lambda row: float(row["recall"]))
    named = ", ".join(f"{row['class']} {100 * float(row['recall']):.2f} %" for row in rows)
    f1 = json.loads(workspace.metrics.read_text())["test_macro_f1"]
    said = f"Some classes are rare: macro F1 {f1:.4f}, lowest recall {named}."
    assert said in capsys.readouterr().out


def test_classes_without_test_images_have_no_recall(config, workspace, capsys):
    drop_second_class(workspace)
    run(config, workspace)
    [absent] = [row for row in rows_of(workspace.per_class) if row["support"] == "0"]
    [printed] = [line for line in capsys.readouterr().out.splitlines() if "lowest recall" in line]
    assert f"{absent['class']} " not in printed.partition("lowest recall")[2]
    [row] = re.findall(rf"^\| {absent['class']} .*\| 0 \|$", workspace.model_card.read_text(), re.MULTILINE)
    assert row.endswith("| – | – | 0 |")


def test_without_validation_images_there_are_no_validation_metrics(config, workspace):
    text = HISTORY.replace("0.4,0.85", ",").replace("0.3,0.91", ",").replace("0.35,0.9", ",")
    workspace.history.write_text(text)
    run(config, workspace)
    assert not {"val_accuracy", "val_loss"} & set(json.loads(workspace.metrics.read_text()))


def test_the_card_says_on_which_images_the_threshold_was_measured(config, workspace, monkeypatch):
    model = load(workspace.onnx)
    unlike = Unlike(
        threshold=1.0, false_alarm_rate=0.03, images=30, brightest=255, mean=(0.0,), precision=(1.0,)
    )
    model.description = model.description.model_copy(update={"unlike": unlike})
    monkeypatch.setattr(evaluate, "load", lambda path: model)
    dataset = json.loads(workspace.dataset.read_text())
    for total, said in (
        (30, "about 3 % of images of their kind exceed, as measured on 30 validation images."),
        (0, "as measured on 30 training images. Since the network was trained on these"),
    ):
        dataset["counts"]["validation"] = {"total": total, "per_class": [0, 0, total]}
        workspace.dataset.write_text(json.dumps(dataset))
        run(with_settings(config, robustness=0), workspace)
        assert said in workspace.model_card.read_text().split("## Limits")[1]


def test_evaluating_again_writes_the_same_bytes_and_removes_stale_files(config, workspace, evaluated, capsys):
    workspace.figures.mkdir(parents=True)
    (workspace.figures / "stale.png").touch()
    run(config, workspace)
    assert reports(workspace) == reports(evaluated)
    assert "NLL" in capsys.readouterr().out


def test_the_scores_of_an_image_do_not_depend_on_its_batch(evaluated):
    saved = np.load(evaluated.probabilities)
    images, _ = read_split(evaluated, "test")
    alone = load(evaluated.onnx).probabilities(images[2:3].reshape(1, 4, 5))
    assert alone[0] == pytest.approx(saved[2], rel=1e-5)


def test_augmented_scores_are_the_mean_over_the_image_and_its_eight_shifted_copies(workspace):
    images, _ = read_split(workspace, "test")
    model, image = load(workspace.onnx), images[7].reshape(4, 5)
    framed = np.zeros((6, 7), np.uint8)
    framed[1:-1, 1:-1] = image
    moved = np.stack([framed[top : top + 4, left : left + 5] for top in range(3) for left in range(3)])
    expected = model.probabilities(moved).mean(axis=0)
    plain, augmented = evaluate.predict(model, images, read_dataset(workspace), tta_shift=1)
    assert augmented[7] == pytest.approx(expected, rel=1e-5)
    assert plain[7] == pytest.approx(model.probabilities(image[None])[0], rel=1e-5)
    assert plain[7] != pytest.approx(expected, rel=1e-2)


def test_test_time_augmentation_adds_metrics_and_changes_nothing_else(config, workspace, evaluated, capsys):
    run(with_settings(config, tta_shift=1), workspace)
    plain, both = (json.loads(place.metrics.read_text()) for place in (evaluated, workspace))
    added = {name: both.pop(name) for name in list(both) if name.startswith("test_tta_")}
    assert both == plain
    names = ("accuracy", "accuracy_low", "accuracy_high", "nll", "ece", "macro_f1", "errors")
    assert set(added) == {f"test_tta_{name}" for name in names}
    assert added["test_tta_accuracy"] == 1 - added["test_tta_errors"] / TEST_IMAGES < plain["test_accuracy"]
    same = [path for path in reports(evaluated) if path.name != "metrics.json"]
    assert [reports(workspace)[path] for path in same] == [reports(evaluated)[path] for path in same]
    assert f"{100 * added['test_tta_accuracy']:.2f} %" in capsys.readouterr().out


def test_label_issues_are_listed_and_shown_on_request(config, workspace):
    folder = workspace.processed / "test"
    labels = np.load(folder / "labels.npy")
    scores = load(workspace.onnx).probabilities(read_split(workspace, "test")[0].reshape(-1, 4, 5))
    surest = scores.max(axis=1).argsort()[-3:]
    labels[surest] = (scores[surest].argmax(axis=1) + 1) % 3
    np.save(folder / "labels.npy", labels)
    record_test_split(workspace)
    run(with_settings(config, label_issues=2), workspace)
    table = rows_of(workspace.label_issues)
    assert len(table) == 2
    assert {int(row["index"]) for row in table} < set(surest)
    assert all(row["label"] != row["suggested"] and float(row["probability"]) < 0.1 for row in table)
    assert (workspace.figures / "label_issues.png").exists()


def test_evaluate_imports_neither_tensorflow_nor_mlflow(config, workspace):
    workspace.params.write_text(dump(config))
    script = (
        "import sys; from pathlib import Path; from pipeline.artifacts.workspace import Workspace; "
        "from pipeline.config.params import read_params; from pipeline.stages import evaluate; "
        f"workspace = Workspace(Path({str(workspace.root)!r})); "
        "evaluate.run(read_params(workspace.params), workspace); "
        "print([name for name in ('tensorflow', 'keras', 'mlflow') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]"
