"""evaluate: the model judges the test images, which no stage before looked at; numbers and pictures of it."""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.history import Epoch, read_history
from pipeline.artifacts.onnx_file import BATCH, Classifier, load
from pipeline.artifacts.processed import Dataset, read_dataset, read_split, refuse_damaged_splits
from pipeline.artifacts.workspace import Workspace, atomic, sha256, write_text
from pipeline.config.schema import Config
from pipeline.console import say
from pipeline.errors import PipelineError
from pipeline.evaluation.card import Card
from pipeline.evaluation.label_issues import label_issues
from pipeline.evaluation.metrics import Predictions, is_unbalanced, measure, measure_classes
from pipeline.evaluation.robustness import measure_robustness
from pipeline.plots.evaluated import Evaluated, draw

_WORST = 3  # classes that are named where some are rare


def run(config: Config, workspace: Workspace) -> None:
    """Judge models/model.onnx, the file that is used, by the test split and write reports/.

    All that has no "tta" in its name is of the model file as it is.

    Args:
        config: evaluate.
        workspace: has data/processed and models.

    Raises:
        PipelineError: data, model, run or history are missing or don't belong together, or the model's
            scores are no probabilities.
    """
    settings = config.evaluate
    dataset = read_dataset(workspace)
    refuse_damaged_splits(workspace, dataset, "test")
    images, labels = read_split(workspace, "test")
    history = read_history(workspace.history)
    run = _run_of_the_model(workspace)
    model = load(workspace.onnx)
    scores, averaged = predict(model, images, dataset, settings.tta_shift)
    predictions = Predictions(dataset.classes, labels, scores)
    issues = label_issues(predictions) if settings.label_issues else None

    metrics = _named("test", measure(predictions, settings.calibration_bins))
    metrics["test_images"] = len(labels)
    if settings.tta_shift:
        augmented = Predictions(dataset.classes, labels, averaged)
        metrics |= _named("test_tta", measure(augmented, settings.calibration_bins))
    metrics |= _of_training(history.best)
    metrics["generalisation_gap"] = metrics["train_accuracy"] - metrics["test_accuracy"]

    with atomic(workspace.probabilities) as temporary, temporary.open("wb") as file:
        np.save(file, predictions.scores)
    _write_csv(workspace.predictions, *_prediction_table(predictions))
    by_class = measure_classes(predictions)
    head = ("class", "precision", "recall", "f1", "support")
    _write_csv(workspace.per_class, head, map(astuple, by_class))
    listed = () if issues is None else issues[: settings.label_issues]
    _write_csv(workspace.label_issues, *_label_table(predictions, listed))
    with atomic(workspace.figures) as folder:
        folder.mkdir()
        draw(folder, Evaluated(predictions, images, dataset.image_shape, history, settings, issues))
    # From everywhere: test sets may begin with easy ones.
    some = slice(None, None, -(-len(labels) // settings.robustness) if settings.robustness else None)
    robustness = (
        measure_robustness(model, images[some].reshape(-1, *dataset.image_shape), labels[some])
        if settings.robustness
        else ()
    )
    card = Card(
        model.description,
        run,
        dataset,
        history.best,
        metrics,
        by_class,
        predictions,
        robustness,
        len(labels[some]),
    )
    write_text(workspace.model_card, card.text())
    # Last, since it says that the rest is there.
    text = json.dumps(
        metrics | {"weights_sha256": model.description.weights_sha256}, indent=2, allow_nan=False
    )
    write_text(workspace.metrics, text + "\n")
    accuracy, low, high = (100 * metrics[f"test_accuracy{end}"] for end in ("", "_low", "_high"))
    say(
        f"Test accuracy {accuracy:.2f} % (95 % interval {low:.2f} to {high:.2f} %), "
        f"NLL {metrics['test_nll']:.4f}, ECE {metrics['test_ece']:.4f}."
    )
    if is_unbalanced([found.support for found in by_class]):
        worst = sorted(by_class, key=lambda found: found.recall)[:_WORST]
        recalls = ", ".join(f"{found.name} {100 * found.recall:.2f} %" for found in worst)
        say(f"Some classes are rare: macro F1 {metrics['test_macro_f1']:.4f}, lowest recall {recalls}.")
    if settings.tta_shift:
        say(f"With test-time augmentation, test accuracy {100 * metrics['test_tta_accuracy']:.2f} %.")


def _named(split: str, metrics: dict[str, float]) -> dict[str, float]:
    """The metrics by names that say which split they are of."""
    return {f"{split}_{name}": value for name, value in metrics.items()}


def _of_training(best: Epoch) -> dict[str, float]:
    """What the training's best epoch reached; without validation images nothing is said of them."""
    names = ("val_accuracy", "val_loss", "train_accuracy")
    return {name: value for name in names if (value := getattr(best, name)) is not None}


def _run_of_the_model(workspace: Workspace) -> dict[str, Any]:
    """What models/run.json says; the model file must be the one that it names."""
    try:
        run: dict[str, Any] = json.loads(workspace.run.read_text(encoding="utf-8"))
        name, expected = str(run["name"]), str(run["result"]["onnx_sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        raise PipelineError(f"{workspace.run} is missing or damaged: `dvc repro` restores it.") from None
    if not workspace.onnx.exists():
        raise PipelineError(f"{workspace.onnx} is missing: `dvc repro` restores it.")
    if (digest := sha256(workspace.onnx)) != expected:
        raise PipelineError(
            f"{workspace.onnx} is not the model of the run {name}, which models/run.json names: its SHA-256 "
            f"begins with {digest[:12]}, the run's with {expected[:12]}. `dvc repro --force --single-item "
            "train` trains the run's model again; a model from elsewhere can't be evaluated in its name."
        )
    return run


def predict(
    model: Classifier, images: NDArray[np.uint8], dataset: Dataset, tta_shift: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The model's distribution for each image, without and with test-time augmentation.

    Args:
        model: from uint8 (batch, *image_shape) to float32 (batch, classes).
        images: uint8 (n, pixels); may be memory-mapped.
        dataset: says the images' shape and the classes.
        tta_shift: in pixels; 0: none.

    Returns:
        Twice float32 (n, classes), whose rows sum to one within 0.001: the model's own distributions, and
        their means over the image as it is and moved by `tta_shift` in the eight directions; what comes
        from outside of an image is black.

    Raises:
        PipelineError: there are no images, the model is for another shape or number of classes, or its
            rows are no distributions.
    """
    shape, classes = dataset.image_shape, len(dataset.classes)
    if not len(images):
        raise PipelineError("There are no test images to evaluate the model by.")
    taken = model.description
    if (taken.image_shape, len(taken.classes)) != (shape, classes):
        raise PipelineError(
            f"The model takes images of shape {taken.image_shape} in {len(taken.classes)} classes, but "
            f"{dataset.name} has images of shape {shape} in {classes} classes: train it on these data."
        )
    scores, averaged = np.empty((2, len(images), classes), np.float32)
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH].reshape(-1, *shape)
        moved = [model.probabilities(images) for images in _shifted(batch, tta_shift)]
        scores[start : start + BATCH] = moved[len(moved) // 2]
        averaged[start : start + BATCH] = np.mean(moved, axis=0)
    for rows in (scores, averaged):
        _refuse_no_distributions(rows)
    return scores, averaged


def _refuse_no_distributions(scores: NDArray[np.float32]) -> None:
    # A sum that is not finite is not near one either.
    bad = ~((scores >= 0).all(axis=1) & (np.abs(scores.sum(axis=1) - 1) < 1e-3))
    if bad.any():
        raise PipelineError(
            f"The model's scores for {bad.sum():,} of {len(scores):,} test images are no probabilities "
            f"(image {bad.argmax()}: {scores[bad.argmax()]}): its training diverged, or the file is not one "
            "that the stage train wrote."
        )


def _shifted(images: NDArray[np.uint8], pixels: int) -> Iterable[NDArray[np.uint8]]:
    """The images (n, height, width, ...) moved by -pixels, 0, pixels down and right; the fifth is unmoved."""
    _, height, width, *channels = images.shape
    padded = np.pad(images, [(0, 0), (pixels, pixels), (pixels, pixels), *[(0, 0) for _ in channels]])
    # All three are the same if nothing moves.
    offsets = range(0, 2 * pixels + 1, max(pixels, 1))
    return (padded[:, top : top + height, left : left + width] for top, left in product(offsets, repeat=2))


def _prediction_table(predictions: Predictions) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    """One row an image, with the columns that DVC's confusion plot expects."""
    names = predictions.classes
    columns = predictions.labels, predictions.predicted, predictions.confidence, predictions.correct
    rows = (
        (index, names[label], names[predicted], f"{confidence:.6f}", int(correct))
        for index, (label, predicted, confidence, correct) in enumerate(zip(*columns, strict=True))
    )
    return ("index", "label", "predicted", "confidence", "correct"), rows


def _label_table(
    predictions: Predictions, chosen: Iterable[int]
) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    """One row a label that looks wrong: which the model suggests, and how probable it finds the given."""
    names = predictions.classes
    rows = (
        (
            index,
            names[predictions.labels[index]],
            names[predictions.predicted[index]],
            f"{predictions.probabilities_of_labels[index]:.6f}",
        )
        for index in chosen
    )
    return ("index", "label", "suggested", "probability"), rows


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
