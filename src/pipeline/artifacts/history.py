"""The history of a training: a CSV file with one row per epoch, for people and for DVC's plots."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.artifacts.workspace import write_text
from pipeline.errors import PipelineError


@dataclass(frozen=True)
class Epoch:
    """The results of one pass over the training images: means over images, in nats and fractions."""

    epoch: int  # from 1
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float


@dataclass(frozen=True)
class History:
    """All epochs, and the number of the best one, whose weights the model has (0 during the training)."""

    epochs: Sequence[Epoch]
    best_epoch: int

    @property
    def best(self) -> Epoch:
        """The epoch whose weights the model has.

        Raises:
            PipelineError: If the training did not end.
        """
        if not self.best_epoch:
            raise PipelineError(
                "The training history names no best epoch, since its training did not end: run `dvc repro`."
            )
        return self.epochs[self.best_epoch - 1]


@dataclass(frozen=True)
class Trained:
    """What is known about a model when its training ends."""

    weights_sha256: str
    onnx_sha256: str  # of the file
    parameters: int
    epochs: int
    best_epoch: int
    # The model file's score on the validation images; None if there are none.
    val_macro_f1: float | None
    # CPU time of the process since the preparation of the first epoch, including time before interruptions.
    cpu_seconds: float


def write_history(path: Path, history: History) -> None:
    """Write a CSV file with the fields of `Epoch` and `best`, which is 1 for the best epoch, else 0."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*Epoch.__dataclass_fields__, "best"], lineterminator="\n")
    writer.writeheader()
    for epoch in history.epochs:
        writer.writerow(asdict(epoch) | {"best": int(epoch.epoch == history.best_epoch)})
    write_text(path, text.getvalue())


def read_history(path: Path) -> History:
    """Read what `write_history` wrote.

    Raises:
        PipelineError: If the file is missing or damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        epochs = [
            Epoch(
                epoch=int(row["epoch"]),
                train_loss=float(row["train_loss"]),
                train_accuracy=float(row["train_accuracy"]),
                val_loss=float(row["val_loss"]) if row["val_loss"] else None,
                val_accuracy=float(row["val_accuracy"]) if row["val_accuracy"] else None,
                learning_rate=float(row["learning_rate"]),
            )
            for row in rows
        ]
        if [epoch.epoch for epoch in epochs] != list(range(1, len(epochs) + 1)):
            raise ValueError("an epoch is missing")  # noqa: TRY301
        best = [epoch.epoch for epoch, row in zip(epochs, rows, strict=True) if row["best"] == "1"]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise PipelineError(f"{path} is not a training history ({error}): run `dvc repro`.") from None
    return History(epochs, best[0] if best else 0)
