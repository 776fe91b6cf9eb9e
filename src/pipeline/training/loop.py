"""The fit loop: an epoch is one compiled call over batches that lie in order in memory.

Keras's own model, loss and optimizer do the arithmetic. What is random in an epoch, the order of the
images and the masks of dropout, follows from (seed, epoch) alone, whatever ran before.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from math import ceil
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.config import TrainSection
from pipeline.data.processed import SCALE
from pipeline.errors import PipelineError
from pipeline.training.batches import Slice, Split, slices
from pipeline.training.checkpoint import Checkpoints, State
from pipeline.training.history import Epoch, History

VALIDATION_BATCH = 2000


def use_threads(threads: int) -> None:
    """Have TensorFlow compute with `threads` threads; their number changes the weights' last bits.

    Raises:
        PipelineError: this process already computed with another number.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        raise PipelineError(
            f"train.threads is {threads}, but this process already runs TensorFlow with "
            f"{tf.config.threading.get_intra_op_parallelism_threads()}: use a process of its own."
        ) from None


def make_optimizer(config: TrainSection, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer that the config names, with its schedule over `steps` steps."""
    rate: float | keras.optimizers.schedules.LearningRateSchedule = config.learning_rate
    if config.schedule == "cosine":
        warm = round(config.warmup * steps)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if warm else rate,
            decay_steps=max(1, steps - warm),
            warmup_target=rate if warm else None,
            warmup_steps=warm,
        )
    averaging = {"use_ema": config.ema_decay > 0, "ema_momentum": config.ema_decay}
    if config.optimizer == "adamw":
        return keras.optimizers.AdamW(
            rate, weight_decay=config.weight_decay, beta_2=config.beta_2, **averaging
        )
    return keras.optimizers.Adam(rate, beta_2=config.beta_2, **averaging)


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
    checkpoints: Checkpoints | None = None,
) -> History:
    """Train `network` in place.

    Args:
        network: from float32 (batch, pixels) in [0, 1] to logits (batch, classes).
        train: uint8 images (n, pixels) and int32 labels (n,); may be memory-mapped.
        validation: the same, possibly of no images.
        config: optimizer, batch size, epochs, augmentation, averaging, early stopping, XLA.
        image_shape: (height, width) or (height, width, channels).
        seed: of the batch order, augmentation and dropout.
        head: `softmax`, or `sigmoid` as in the plain design; see docs/model.md.
        on_epoch: called after each epoch, and first for each that a checkpoint has.
        checkpoints: where to go on from, and to keep the state in between epochs.

    Returns:
        The epochs; kept is the one whose weights `network` now has: the last, or with early stopping
        the best. Where the weights are averaged, these are the averages, and validation is of them.

    Raises:
        PipelineError: a loss or a weight is no longer a finite number.
    """
    images = len(train[1])
    program = _Program.of(network, config, config.epochs * ceil(images / config.batch_size), head)
    trained, optimizer = program.network, program.optimizer
    early = config.early_stopping
    sign = 1 if early.monitor == "val_loss" else -1
    state = (checkpoints and checkpoints.load()) or State([], [], [], np.inf, 0, [])
    if state.network:
        _assign(trained.variables, state.network)
        _assign(optimizer.variables, state.optimizer)
    best, kept, kept_weights = state.best, state.kept_epoch, state.kept_weights
    history = list(state.epochs)
    for epoch in history:
        on_epoch(epoch)

    with closing(slices(train, image_shape, config, seed, len(history) + 1)) as upcoming:
        for number in range(len(history) + 1, config.epochs + 1):
            _seed_dropout(trained, seed, number)
            loss = correct = 0.0
            for batches in _until_end_of_epoch(upcoming):
                whole = batches.labels.shape[1] == config.batch_size
                run = program.run_steps if whole else program.run_rest
                slice_loss, slice_correct = run(batches.images, batches.labels)
                loss += float(slice_loss)
                correct += float(slice_correct)
            with _averaged(trained, optimizer):
                val_loss, val_accuracy = _test(program.test_batch, validation)
                judged = trained.get_weights()
            epoch = Epoch(
                number,
                loss / images,
                correct / images,
                val_loss,
                val_accuracy,
                # Kept in single precision: 0.001 and not 0.0010000000474974513.
                float(f"{float(optimizer.learning_rate):.7g}"),
            )
            # The last batch may ruin the weights after its loss was taken.
            if not all(np.isfinite(part).all() for part in (epoch.loss, val_loss or 0.0, *judged)):
                raise PipelineError(
                    f"Training diverged in epoch {number} (loss {epoch.loss:.4g}). "
                    f"Lower train.learning_rate (now {config.learning_rate})."
                )
            history.append(epoch)
            _assign(network.variables, trained.variables)
            on_epoch(epoch)
            if early.patience:
                value = sign * float(getattr(epoch, early.monitor))
                if value < best - early.min_delta or kept == 0:
                    best, kept, kept_weights = value, number, judged
                elif number - kept >= early.patience:
                    break
            if checkpoints and checkpoints.due:
                checkpoints.save(
                    State(history, _values(trained), _values(optimizer), best, kept, kept_weights)
                )

    if kept:
        trained.set_weights(kept_weights)
    else:
        optimizer.finalize_variable_values(trained.trainable_variables)
    _assign(network.variables, trained.variables)
    return History(history, kept or len(history))


def _assign(variables: Sequence[keras.Variable], values: Sequence[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _values(owner: keras.Model | keras.optimizers.Optimizer) -> list[NDArray[np.generic]]:
    return [keras.ops.convert_to_numpy(variable) for variable in owner.variables]


@contextmanager
def _averaged(network: keras.Model, optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Have the network hold the moving averages of its weights meanwhile, if the optimizer keeps them."""
    weights = network.get_weights() if optimizer.use_ema else None
    optimizer.finalize_variable_values(network.trainable_variables)
    yield
    if weights:
        network.set_weights(weights)


class _Program:
    """The arithmetic of one batch, and of many laid out in order, compiled when it is first called.

    Trainings that differ in the seed or the rate, as in a sweep, use it one after the other: it has a network
    and an optimizer of its own, which take on their values.
    """

    _latest: "tuple[str, _Program] | None" = None

    def __init__(self, network: keras.Model, config: TrainSection, steps: int, head: str) -> None:
        self.network = keras.models.clone_model(network)
        self.optimizer = make_optimizer(config, steps)
        self.optimizer.build(self.network.trainable_variables)
        self.activation = keras.activations.get("sigmoid" if head == "sigmoid" else "linear")
        self.loss = keras.losses.SparseCategoricalCrossentropy(from_logits=head != "sigmoid")
        self.smoothed = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=config.label_smoothing
        )
        self.smoothing = config.label_smoothing > 0
        self.run_steps = tf.function(self.over_batches, jit_compile=bool(config.xla))
        self.run_rest = tf.function(self.over_batches)
        self.test_batch = tf.function(self.test)

    @classmethod
    def of(cls, network: keras.Model, config: TrainSection, steps: int, head: str) -> "_Program":
        """One with the values of `network` and of a fresh optimizer: the latest, if it computes the same."""
        optimizer = make_optimizer(config, steps)
        optimizer.build(network.trainable_variables)
        # A constant rate is a variable, and the names are numbered.
        variable = {"name", "learning_rate"} if config.schedule == "constant" else {"name"}
        fixed = {key: value for key, value in optimizer.get_config().items() if key not in variable}
        design = repr(
            (network.get_config(), config.optimizer, fixed, config.label_smoothing, config.xla, head)
        )
        if cls._latest is None or cls._latest[0] != design:
            # What the one before holds need not be kept while the next is compiled.
            cls._latest = None
            cls._latest = design, cls(network, config, steps, head)
        program = cls._latest[1]
        _assign(program.network.variables, network.variables)
        _assign(program.optimizer.variables, optimizer.variables)
        return program

    def over_batches(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Train on uint8 (steps, batch, pixels), int32 (steps, batch); sums of loss and of hits."""
        loss = correct = tf.constant(0.0)
        for step in tf.range(tf.shape(images)[0]):
            batch_loss, batch_correct = self.train(images[step], labels[step])
            loss += batch_loss
            correct += batch_correct
        return loss, correct

    def train(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = self.network(_scale(images), training=True)
            if self.smoothing:
                mean = self.smoothed(tf.one_hot(labels, logits.shape[-1]), logits)
            else:
                mean = self.loss(labels, self.activation(logits))
        variables = self.network.trainable_variables
        self.optimizer.apply(tape.gradient(mean, variables), variables)
        return mean * tf.cast(tf.shape(labels)[0], tf.float32), _hits(labels, logits)

    def test(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = self.network(_scale(images), training=False)
        losses = keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        return tf.reduce_sum(losses), _hits(labels, logits)


def _scale(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(images, tf.float32) * np.float32(SCALE)


def _hits(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(tf.argmax(logits, -1, tf.int32) == labels, tf.float32))


def _until_end_of_epoch(upcoming: Iterator[Slice]) -> Iterator[Slice]:
    for batches in upcoming:
        yield batches
        if batches.ends_epoch:
            return


def _test(
    test_batch: tf.types.experimental.PolymorphicFunction, split: Split
) -> tuple[float | None, float | None]:
    images, labels = split
    if not len(labels):
        return None, None
    loss = correct = 0.0
    for start in range(0, len(labels), VALIDATION_BATCH):
        part = slice(start, start + VALIDATION_BATCH)
        batch_loss, batch_correct = test_batch(tf.constant(images[part]), tf.constant(labels[part]))
        loss += float(batch_loss)
        correct += float(batch_correct)
    return loss / len(labels), correct / len(labels)


def _seed_dropout(network: keras.Model, seed: int, epoch: int) -> None:
    states = [variable for variable in network.variables if "seed_generator" in variable.path]
    for number, state in enumerate(states):
        state.assign(np.random.SeedSequence([seed, epoch, number]).generate_state(2))
