"""evaluate: measure the model on the test images, which no earlier stage used, in numbers and figures."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.history import Epoch, read_history
from pipeline.artifacts.onnx_file import BATCH, Classifier, load
from pipeline.artifacts.processed import Dataset, read_dataset, read_split, refuse_damaged_splits
from pipeline.artifacts.workspace import Workspace, atomic, sha256, write_csv, write_text
from pipeline.config.schema import Config
from pipeline.console import percent, printable, say
from pipeline.errors import PipelineError
from pipeline.evaluation.card import Card
from pipeline.evaluation.label_issues import label_issues
from pipeline.evaluation.metrics import Predictions, is_unbalanced, measure, measure_classes
from pipeline.evaluation.robustness import Robustness, measure_robustness
from pipeline.plots.evaluated import Evaluated, draw

_WORST = 3  # classes to name if some are rare


def run(config: Config, workspace: Workspace) -> None:
    """Evaluate models/model.onnx, the file that is deployed, on the test split and write reports/.

    Results without "tta" in their names are those of the model file without test-time augmentation.

    Raises:
        PipelineError: If data, model, run or history are missing or do not belong together, or if the model's
            scores are not probabilities.
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
    write_csv(workspace.predictions, *_prediction_table(predictions))
    by_class = measure_classes(predictions)
    head = ("class", "precision", "recall", "f1", "support")
    write_csv(workspace.per_class, head, map(astuple, by_class))
    listed = () if issues is None else issues[: settings.label_issues]
    write_csv(workspace.label_issues, *_label_table(predictions, listed))
    with atomic(workspace.figures) as folder:
        folder.mkdir()
        draw(folder, Evaluated(predictions, images, dataset.image_shape, history, settings, issues))
    robustness: Sequence[Robustness] = ()
    if settings.robustness:
        # Images from the whole split, since test sets may begin with easy ones.
        some = slice(None, None, -(-len(labels) // settings.robustness))
        robustness = measure_robustness(model, images[some].reshape(-1, *dataset.image_shape), labels[some])
    card = Card(model.description, run, dataset, history.best, metrics, by_class, predictions, robustness)
    write_text(workspace.model_card, card.text())
    # Written last, since it shows that the rest is complete.
    text = json.dumps(
        metrics | {"weights_sha256": model.description.weights_sha256}, indent=2, allow_nan=False
    )
    write_text(workspace.metrics, text + "\n")
    accuracy, low, high = (100 * metrics[f"test_accuracy{end}"] for end in ("", "_low", "_high"))
    say(
        f"Test accuracy {accuracy:.2f} % (95 % interval {low:.2f} to {high:.2f} %), "
        f"NLL {metrics['test_nll']:.4f}, ECE {metrics['test_ece']:.4f}."
    )
    if is_unbalanced([each.support for each in by_class]):
        worst = sorted((each for each in by_class if each.support), key=lambda each: each.recall)[:_WORST]
        recalls = ", ".join(f"{printable(each.name)} {percent(each.recall)}" for each in worst)
        say(f"Some classes are rare: macro F1 {metrics['test_macro_f1']:.4f}, lowest recall {recalls}.")
    if settings.tta_shift:
        say(f"With test-time augmentation, test accuracy {percent(metrics['test_tta_accuracy'])}.")


def _named(split: str, metrics: dict[str, float]) -> dict[str, float]:
    """Prefix the names of the metrics with their split."""
    return {f"{split}_{name}": value for name, value in metrics.items()}


def _of_training(best: Epoch) -> dict[str, float]:
    """Return the metrics of the training's best epoch, without those of missing validation images."""
    names = ("val_accuracy", "val_loss", "train_accuracy")
    return {name: value for name in names if (value := getattr(best, name)) is not None}


def _run_of_the_model(workspace: Workspace) -> dict[str, Any]:
    """Read models/run.json, and check that the model file is the one that it names."""
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
            "train` trains the run's model again; a model from elsewhere can't be evaluated as this run."
        )
    return run


def predict(
    model: Classifier, images: NDArray[np.uint8], dataset: Dataset, tta_shift: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Predict the class probabilities of each image, without and with test-time augmentation.

    Args:
        model: Maps uint8 (batch, *image_shape) to float32 (batch, classes).
        images: uint8 (n, pixels); may be memory-mapped.
        dataset: Gives the shape of the images and the classes.
        tta_shift: By how many pixels images are moved; 0 for no augmentation.

    Returns:
        Two arrays, float32 (n, classes), whose rows sum to one within 0.001: the model's probabilities for
        each image, and their means over the image itself and its copies moved by `tta_shift` in the eight
        directions. Pixels from outside of an image are black.

    Raises:
        PipelineError: If there are no images, the model is for another shape or number of classes, or its
            scores are not probabilities.
    """
    shape, classes = dataset.image_shape, len(dataset.classes)
    if not len(images):
        raise PipelineError("There are no test images to evaluate the model on.")
    taken = model.description
    if (taken.image_shape, len(taken.classes)) != (shape, classes):
        raise PipelineError(
            f"The model takes images of shape {taken.image_shape} in {len(taken.classes)} classes, but "
            f"{dataset.name} has images of shape {shape} in {classes} classes: train it on this data."
        )
    scores, averaged = np.empty((2, len(images), classes), np.float32)
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH].reshape(-1, *shape)
        moved = [model.probabilities(images) for images in _shifted(batch, tta_shift)]
        scores[start : start + BATCH] = moved[len(moved) // 2]
        averaged[start : start + BATCH] = np.mean(moved, axis=0)
    for rows in (scores, averaged):
        _refuse_invalid_scores(rows)
    return scores, averaged


def _refuse_invalid_scores(scores: NDArray[np.float32]) -> None:
    # A sum that is not finite is not close to one either.
    bad = ~((scores >= 0).all(axis=1) & (np.abs(scores.sum(axis=1) - 1) < 1e-3))
    if bad.any():
        raise PipelineError(
            f"The model's scores for {bad.sum():,} of {len(scores):,} test images are not probabilities "
            f"(image {bad.argmax()}: {scores[bad.argmax()]}): its training diverged, or the file is not one "
            "that the stage train wrote."
        )


def _shifted(images: NDArray[np.uint8], pixels: int) -> Iterable[NDArray[np.uint8]]:
    """Move images (n, height, width, ...) by -pixels, 0 and pixels down and right; the fifth is unmoved."""
    _, height, width, *channels = images.shape
    padded = np.pad(images, [(0, 0), (pixels, pixels), (pixels, pixels), *[(0, 0) for _ in channels]])
    # With 0 pixels all shifts are the same, so one is enough.
    offsets = range(0, 2 * pixels + 1, max(pixels, 1))
    return (padded[:, top : top + height, left : left + width] for top, left in product(offsets, repeat=2))


def _prediction_table(predictions: Predictions) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    """Return one row per image, with the columns that DVC's confusion plot expects."""
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
    """Return one row per suspicious label: the class that the model suggests, and the label's probability."""
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
