"""evaluate: the model judges the test images, which no stage before looked at; numbers and pictures of it."""

import csv
import json
from typing import TYPE_CHECKING, TextIO

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.console import say
from pipeline.data.processed import Dataset, read_dataset, read_split
from pipeline.errors import PipelineError
from pipeline.evaluation.figures import draw
from pipeline.evaluation.metrics import Predictions, measure
from pipeline.models.archive import load, weights_digest
from pipeline.training.history import read_history
from pipeline.workspace import Workspace, atomic, write_text

if TYPE_CHECKING:
    import keras

BATCH = 1000  # Bounds the memory; a model's layers multiply it.


def run(config: Config, workspace: Workspace) -> None:
    """Judge models/model.keras by the test split and write reports/.

    Args:
        config: evaluate.
        workspace: has data/processed and models.

    Raises:
        PipelineError: data, model or history are missing or don't belong together, or the model's
            answers are no probabilities.
    """
    dataset = read_dataset(workspace)
    images, labels = read_split(workspace, "test")
    history = read_history(workspace.history)
    model = load(workspace.model)
    predictions = Predictions(dataset.classes, labels, predict(model, images, dataset))

    metrics = measure(predictions, config.evaluate.calibration_bins)
    metrics["train_accuracy"] = history.kept.accuracy
    metrics["generalisation_gap"] = history.kept.accuracy - metrics["accuracy"]
    metrics["weights_sha256"] = weights_digest(model)

    with atomic(workspace.probabilities) as temporary, temporary.open("wb") as file:
        np.save(file, predictions.scores)
    with (
        atomic(workspace.predictions) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as table,
    ):
        _write_table(predictions, table)
    with atomic(workspace.figures) as folder:
        folder.mkdir()
        draw(
            folder,
            predictions,
            images,
            dataset.image_shape,
            history,
            config.evaluate.calibration_bins,
            config.evaluate.worst_mistakes,
        )
    write_text(workspace.metrics, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    accuracy, low, high = (100 * metrics[name] for name in ("accuracy", "accuracy_low", "accuracy_high"))
    say(
        f"Test accuracy {accuracy:.2f} % (95 % interval {low:.2f} to {high:.2f} %), "
        f"NLL {metrics['nll']:.4f}, ECE {metrics['ece']:.4f}."
    )


def predict(model: "keras.Model", images: NDArray[np.uint8], dataset: Dataset) -> NDArray[np.float32]:
    """The model's distribution for each image.

    Args:
        model: as `archive.load` gives it, from uint8 (batch, *image_shape).
        images: uint8 (n, pixels); may be memory-mapped.
        dataset: says the images' shape and the classes.

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
        scores[start : start + BATCH] = model.predict_on_batch(batch)
    # A sum that is not finite is not near one either.
    bad = ~((scores >= 0).all(axis=1) & (np.abs(scores.sum(axis=1) - 1) < 1e-3))
    if bad.any():
        raise PipelineError(
            f"The model's scores for {bad.sum():,} of {len(images):,} test images are no probabilities "
            f"(image {bad.argmax()}: {scores[bad.argmax()]}): its training diverged, or the file is not one "
            "that the stage train wrote."
        )
    return scores


def _write_table(predictions: Predictions, file: TextIO) -> None:
    """One row an image, with the columns that DVC's confusion plot expects."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("index", "label", "predicted", "confidence", "correct"))
    rows = zip(
        predictions.labels, predictions.predicted, predictions.confidence, predictions.correct, strict=True
    )
    for index, (label, predicted, confidence, correct) in enumerate(rows):
        names = predictions.classes[label], predictions.classes[predicted]
        writer.writerow((index, *names, f"{confidence:.6f}", int(correct)))
