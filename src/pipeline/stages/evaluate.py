"""evaluate: the model judges the test images, which no stage before looked at; numbers and pictures of it."""

import csv
import json
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.history import read_history
from pipeline.artifacts.model_file import load, weights_digest
from pipeline.artifacts.processed import Dataset, read_dataset, read_split
from pipeline.artifacts.workspace import Workspace, atomic, write_text
from pipeline.config.schema import Config
from pipeline.console import say
from pipeline.environment import use_threads
from pipeline.errors import PipelineError
from pipeline.evaluation.label_issues import doubtful_labels
from pipeline.evaluation.metrics import Ints, Predictions, measure
from pipeline.plots.evaluated import Evaluated, draw

if TYPE_CHECKING:
    import keras

BATCH = 1000  # Bounds the memory; a model's layers multiply it.


def run(config: Config, workspace: Workspace) -> None:
    """Judge models/model.keras by the test split and write reports/.

    Args:
        config: evaluate, and train.threads: their number changes a distribution's last bits.
        workspace: has data/processed and models.

    Raises:
        PipelineError: data, model or history are missing or don't belong together, or the model's
            answers are no probabilities; or doubtful labels are asked for without cleanlab.
    """
    settings = config.evaluate
    use_threads(config.train.threads)
    dataset = read_dataset(workspace)
    images, labels = read_split(workspace, "test")
    history = read_history(workspace.history)
    model = load(workspace.model)
    scores = predict(model, images, dataset, settings.shifts)
    predictions = Predictions(dataset.classes, labels, scores)
    doubtful = doubtful_labels(predictions) if settings.doubtful_labels else None

    metrics = measure(predictions, settings.calibration_bins)
    metrics["train_accuracy"] = history.best.train_accuracy
    metrics["generalisation_gap"] = history.best.train_accuracy - metrics["accuracy"]
    metrics["weights_sha256"] = weights_digest(model)

    with atomic(workspace.probabilities) as temporary, temporary.open("wb") as file:
        np.save(file, predictions.scores)
    with atomic(workspace.predictions) as temporary:
        _write_csv(temporary, *_prediction_table(predictions))
    with atomic(workspace.figures) as folder:
        folder.mkdir()
        draw(folder, Evaluated(predictions, images, dataset.image_shape, history, settings, doubtful))
        if doubtful is not None:
            listed = doubtful[: settings.doubtful_labels]
            _write_csv(folder / "doubtful_labels.csv", *_label_table(predictions, listed))
    write_text(workspace.metrics, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    accuracy, low, high = (100 * metrics[name] for name in ("accuracy", "accuracy_low", "accuracy_high"))
    say(
        f"Test accuracy {accuracy:.2f} % (95 % interval {low:.2f} to {high:.2f} %), "
        f"NLL {metrics['nll']:.4f}, ECE {metrics['ece']:.4f}."
    )


def predict(
    model: "keras.Model", images: NDArray[np.uint8], dataset: Dataset, shifts: int = 0
) -> NDArray[np.float32]:
    """The model's distribution for each image.

    Args:
        model: as `model_file.load` gives it, from uint8 (batch, *image_shape).
        images: uint8 (n, pixels); may be memory-mapped.
        dataset: says the images' shape and the classes.
        shifts: if above 0, the mean over the image as it is and moved by so many pixels in the eight
            directions; what comes from outside of an image is black.

    Returns:
        float32 (n, classes); each row sums to one within 0.001.

    Raises:
        PipelineError: there are no images, the model is for another shape or number of classes, or its
            rows are no distributions.
    """
    shape, classes = dataset.image_shape, len(dataset.classes)
    if not len(images):
        raise PipelineError("There are no test images to evaluate the model by.")
    expected = (tuple(model.input_shape[1:]), tuple(model.output_shape[1:]))
    if expected != (tuple(shape), (classes,)):
        raise PipelineError(
            f"The model maps images of shape {expected[0]} to scores of shape {expected[1]}, but "
            f"{dataset.name} has images of shape {tuple(shape)} in {classes} classes: train it on these data."
        )
    scores = np.empty((len(images), classes), np.float32)
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH].reshape(-1, *shape)
        moved = [model.predict_on_batch(images) for images in _shifted(batch, shifts)]
        scores[start : start + BATCH] = np.mean(moved, axis=0)
    # A sum that is not finite is not near one either.
    bad = ~((scores >= 0).all(axis=1) & (np.abs(scores.sum(axis=1) - 1) < 1e-3))
    if bad.any():
        raise PipelineError(
            f"The model's scores for {bad.sum():,} of {len(images):,} test images are no probabilities "
            f"(image {bad.argmax()}: {scores[bad.argmax()]}): its training diverged, or the file is not one "
            "that the stage train wrote."
        )
    return scores


def _shifted(images: NDArray[np.uint8], pixels: int) -> Iterable[NDArray[np.uint8]]:
    """The images (n, height, width, ...) moved by -pixels, 0 and pixels down and to the right."""
    _, height, width, *channels = images.shape
    padded = np.pad(images, [(0, 0), (pixels, pixels), (pixels, pixels), *[(0, 0) for _ in channels]])
    # All three are one place if nothing moves.
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


def _label_table(predictions: Predictions, chosen: Ints) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    """One row a doubtful label: which the model would give instead, and how probable it finds the given."""
    names = predictions.classes
    rows = (
        (
            index,
            names[predictions.labels[index]],
            names[predictions.predicted[index]],
            f"{predictions.probabilities[index, predictions.labels[index]]:.6f}",
        )
        for index in chosen
    )
    return ("index", "label", "suggested", "probability"), rows


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
