"""The fit loop: epochs, early stopping and checkpoints. The arithmetic is left to a backend.

Everything random in an epoch (the order of the images, the dropout masks) is derived from (seed, epoch)
alone, regardless of what ran before.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.history import Epoch, History
from pipeline.config.schema import TrainSection
from pipeline.errors import PipelineError
from pipeline.training.backends import program_of
from pipeline.training.batches import Slice, Split, slices
from pipeline.training.checkpoint import Checkpoints, TrainState
from pipeline.training.program import Program


@dataclass(frozen=True)
class FineTune:
    """When and how to train the part of a network that is frozen at first."""

    epoch: int  # the first epoch in which that part is trained
    rate: float  # the factor applied to the learning rate from that epoch on
    thaw: Callable[[keras.Model], None]


def fit(
    network: keras.Model,
    train: Split,
    validation: Split,
    config: TrainSection,
    *,
    image_shape: tuple[int, ...],
    seed: int,
    head: str = "softmax",
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_steps: Callable[[int], None] = lambda steps: None,
    checkpoints: Checkpoints | None = None,
    fine_tune: FineTune | None = None,
) -> History:
    """Train `network` in place.

    Args:
        network: from float32 (batch, pixels) in [0, 1] to logits (batch, classes).
        train: uint8 images (n, pixels) and int32 labels (n,); may be memory-mapped.
        validation: the same, possibly empty.
        config: optimizer, batch size, epochs, augmentation, averaging, early stopping, XLA.
        image_shape: (height, width) or (height, width, channels).
        seed: determines the batch order, augmentation and dropout.
        head: `softmax`, or `sigmoid` as in the baseline; see docs/model.md.
        on_epoch: called after each epoch, and at the start for each epoch restored from a checkpoint.
        on_steps: called about every half second with the number of batches since the last call.
        checkpoints: where to resume from, and where to save the state between epochs.
        fine_tune: when to start training the part of `network` that is frozen at first.

    Returns:
        All epochs, and the best one: the epoch whose weights `network` now has, which is the last one
        without early stopping. If weights are averaged, `network` has the averages, and these are validated.

    Raises:
        PipelineError: If a loss or a weight is no longer finite.
    """
    images = len(train[1])
    balanced = config.class_weight == "balanced"
    weights = class_weights(train[1], network.output_shape[-1]) if balanced else None

    def prepare(number: int) -> Program:
        """Return the program that trains from epoch `number` on, with a new optimizer."""
        settings, epochs = config, config.epochs
        if fine_tune and number >= fine_tune.epoch:
            fine_tune.thaw(network)
            rate = config.learning_rate * fine_tune.rate
            settings, epochs = config.model_copy(update={"learning_rate": rate}), epochs + 1 - fine_tune.epoch
        elif fine_tune:
            epochs = min(epochs, fine_tune.epoch - 1)
        steps = epochs * ceil(images / config.batch_size)
        return program_of(network, settings, steps, head, image_shape, weights)

    program = prepare(max(1, checkpoints.epochs if checkpoints else 0))
    early = config.early_stopping
    sign = 1 if early.monitor == "val_loss" else -1
    fresh = TrainState([], *program.variables(), np.inf, 0, program.weights())
    state = checkpoints and checkpoints.load(like=fresh)
    if state:
        program.restore(state.network, state.optimizer)
    else:
        state = replace(fresh, best_weights=[])
    best_value, best_epoch, best_weights = state.best_value, state.best_epoch, state.best_weights
    history = list(state.epochs)
    for epoch in history:
        on_epoch(epoch)

    # Patience starts only once every part that is to be trained is being trained.
    counted_from = fine_tune.epoch if fine_tune and fine_tune.epoch <= config.epochs else 1
    first = len(history) + 1
    with closing(slices(train, config, seed, first, program.lay_out)) as upcoming:
        for number in range(first, config.epochs + 1):
            if fine_tune and number == fine_tune.epoch > 1:
                program.copy_to(network)
                program = prepare(number)
            program.seed_dropout(seed, number)
            loss = correct = 0.0
            for part in _until_end_of_epoch(upcoming):
                slice_loss, slice_correct = program.train(part.batches, part.whole, on_steps)
                loss += slice_loss
                correct += slice_correct
            with program.averaged():
                val_loss, val_accuracy = program.test(validation)
                judged = program.weights()
            epoch = Epoch(
                number, loss / images, correct / images, val_loss, val_accuracy, program.learning_rate
            )
            # The last batch may ruin the weights after its loss was computed.
            numbers: list[Any] = [epoch.train_loss, val_loss or 0.0, *judged]
            if not all(np.isfinite(part).all() for part in numbers):
                raise PipelineError(
                    f"Training diverged in epoch {number} (loss {epoch.train_loss:.4g}). "
                    f"Lower train.learning_rate (now {config.learning_rate})."
                )
            history.append(epoch)
            program.copy_to(network)
            on_epoch(epoch)
            if early.patience:
                value = sign * float(getattr(epoch, early.monitor))
                if value < best_value - early.min_delta:
                    best_value, best_epoch, best_weights = value, number, judged
                elif number - max(best_epoch, counted_from - 1) >= early.patience:
                    break
            if checkpoints and checkpoints.due:
                checkpoints.save(
                    TrainState(history, *program.variables(), best_value, best_epoch, best_weights)
                )

    program.finish(best_weights)
    program.copy_to(network)
    return History(history, best_epoch or len(history))


def class_weights(labels: NDArray[np.int32], classes: int) -> tuple[float, ...]:
    """Return the weight of each class in the loss that gives all classes the same total weight.

    The mean over the images is 1.

    Args:
        labels: int32 (n,).
        classes: the number of classes; a class without images gets the weight 0.
    """
    counts = np.bincount(labels, minlength=classes)
    occurring = np.count_nonzero(counts)
    return tuple(len(labels) / (occurring * count) if count else 0.0 for count in counts.tolist())


def _until_end_of_epoch(upcoming: Iterator[Slice]) -> Iterator[Slice]:
    for part in upcoming:
        yield part
        if part.ends_epoch:
            return
