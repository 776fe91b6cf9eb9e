"""The arithmetic on TensorFlow: an epoch is one compiled call over batches that lie in order in memory."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.artifacts.processed import SCALE
from pipeline.config.schema import TrainSection
from pipeline.training.batches import Split
from pipeline.training.optimizer import make_optimizer

VALIDATION_BATCH = 2000
_SECONDS_AT_ONCE = 0.5

Arrays = list[NDArray[np.generic]]


class Program:
    """The arithmetic of a training, compiled when it is first called.

    Trainings that differ in the seed or the rate, as in a sweep, use it one after the other: it has a network
    and an optimizer of its own, which take on their values.
    """

    to_device = staticmethod(tf.constant)  # what `train` takes, from NumPy's arrays

    _latest: "tuple[str, Program] | None" = None

    def __init__(
        self,
        network: keras.Model,
        config: TrainSection,
        steps: int,
        head: str,
        class_weights: tuple[float, ...] | None,
    ) -> None:
        """Prepare it; `of` gives one that is compiled already, if it can."""
        self.network = keras.models.clone_model(network)
        self.optimizer = make_optimizer(config, steps)
        self.optimizer.build(self.network.trainable_variables)
        self.activation = keras.activations.get("sigmoid" if head == "sigmoid" else "linear")
        self.loss = keras.losses.SparseCategoricalCrossentropy(from_logits=head != "sigmoid")
        self.smoothed = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=config.label_smoothing
        )
        self.smoothing = config.label_smoothing > 0
        self.class_weights = class_weights and tf.constant(class_weights, tf.float32)
        self._compiled_steps = tf.function(self._over_batches, autograph=False, jit_compile=bool(config.xla))
        self._rest = tf.function(self._over_batches, autograph=False)
        self._test = tf.function(self._test_batch, autograph=False)
        self._steps_at_once = 32

    @classmethod
    def of(
        cls,
        network: keras.Model,
        config: TrainSection,
        steps: int,
        head: str,
        class_weights: tuple[float, ...] | None = None,
    ) -> "Program":
        """One with the values of `network` and of a fresh optimizer: the latest, if it computes the same.

        Args:
            network: from float32 (batch, pixels) in [0, 1] to logits (batch, classes).
            config: optimizer, label smoothing, XLA.
            steps: of the whole training, for the schedule.
            head: `softmax` or `sigmoid`.
            class_weights: what the loss of an image of each class counts; None: 1.
        """
        optimizer = make_optimizer(config, steps)
        optimizer.build(network.trainable_variables)
        # A constant rate is a variable, and the names are numbered.
        variable = {"name", "learning_rate"} if config.schedule == "constant" else {"name"}
        fixed = {key: value for key, value in optimizer.get_config().items() if key not in variable}
        design = repr(
            (
                network.get_config(),
                config.optimizer,
                fixed,
                config.label_smoothing,
                config.xla,
                head,
                class_weights,
            )
        )
        if cls._latest is None or cls._latest[0] != design:
            # What the one before holds need not be kept while the next is compiled.
            cls._latest = None
            cls._latest = design, cls(network, config, steps, head, class_weights)
        program = cls._latest[1]
        _assign(program.network.variables, network.variables)
        _assign(program.optimizer.variables, optimizer.variables)
        return program

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        # Kept in single precision: 0.001 and not 0.0010000000474974513.
        return float(f"{float(self.optimizer.learning_rate):.7g}")

    def weights(self) -> Arrays:
        """What the network computes with now."""
        weights: Arrays = self.network.get_weights()
        return weights

    def variables(self) -> tuple[Arrays, Arrays]:
        """Every variable of the network, also what normalisation and dropout keep, and of the optimizer."""
        return _values(self.network), _values(self.optimizer)

    def restore(self, network: Arrays, optimizer: Arrays) -> None:
        """Take on what `variables` gave."""
        _assign(self.network.variables, network)
        _assign(self.optimizer.variables, optimizer)

    def copy_to(self, network: keras.Model) -> None:
        """Give the values of all variables to a network of the same architecture."""
        _assign(network.variables, self.network.variables)

    def finish(self, best_weights: Arrays) -> None:
        """Have the network hold what a training ends with: `best_weights`, if any, else the averages."""
        if best_weights:
            self.network.set_weights(best_weights)
        else:
            self.optimizer.finalize_variable_values(self.network.trainable_variables)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the network hold the moving averages of its weights meanwhile, if the optimizer keeps them."""
        weights = self.network.get_weights() if self.optimizer.use_ema else None
        self.optimizer.finalize_variable_values(self.network.trainable_variables)
        yield
        if weights:
            self.network.set_weights(weights)

    def seed_dropout(self, seed: int, epoch: int) -> None:
        """Have the masks of an epoch follow from these two alone."""
        states = [variable for variable in self.network.variables if "seed_generator" in variable.path]
        for number, state in enumerate(states):
            state.assign(np.random.SeedSequence([seed, epoch, number]).generate_state(2))

    def train(
        self, images: tf.Tensor, labels: tf.Tensor, whole: bool, on_steps: Callable[[int], None]
    ) -> tuple[float, float]:
        """Train on uint8 (steps, batch, pixels), int32 (steps, batch); sums of loss and of hits.

        Args:
            images: batches, as `to_device` gave them.
            labels: theirs.
            whole: whether the batches are of the usual size, for which it pays to compile.
            on_steps: called about every half second with the number of steps since; it may raise.
        """
        run = self._compiled_steps if whole else self._rest
        sums = tf.constant(0.0), tf.constant(0.0)
        start, steps = 0, len(images)
        while start < steps:
            began = time.monotonic()
            stop = min(start + self._steps_at_once, steps)
            # Handed on, so that they are rounded alike however the steps are divided.
            sums = run(images, labels, tf.constant(start), tf.constant(stop), *sums)
            tf.nest.map_structure(float, sums)
            seconds = time.monotonic() - began
            self._steps_at_once = max(1, int((stop - start) * _SECONDS_AT_ONCE / max(seconds, 1e-3)))
            on_steps(stop - start)
            start = stop
        loss, correct = sums
        return float(loss), float(correct)

    def test(self, split: Split) -> tuple[float | None, float | None]:
        """Mean loss, in nats, and accuracy on uint8 images (n, pixels) with labels; None if n is 0."""
        images, labels = split
        if not len(labels):
            return None, None
        loss = correct = 0.0
        for start in range(0, len(labels), VALIDATION_BATCH):
            part = slice(start, start + VALIDATION_BATCH)
            batch_loss, batch_correct = self._test(tf.constant(images[part]), tf.constant(labels[part]))
            loss += float(batch_loss)
            correct += float(batch_correct)
        return loss / len(labels), correct / len(labels)

    def _over_batches(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        start: tf.Tensor,
        stop: tf.Tensor,
        loss: tf.Tensor,
        correct: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        def one_more(
            step: tf.Tensor, loss: tf.Tensor, correct: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            batch_loss, batch_correct = self._train_batch(images[step], labels[step])
            return step + 1, loss + batch_loss, correct + batch_correct

        # Not a loop of Python's: autograph leaves a file behind in TMPDIR for each function that it converts.
        _, loss, correct = tf.while_loop(lambda step, *_: step < stop, one_more, (start, loss, correct))
        return loss, correct

    def _train_batch(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = self.network(_scale(images), training=True)
            weights = None if self.class_weights is None else tf.gather(self.class_weights, labels)
            if self.smoothing:
                mean = self.smoothed(tf.one_hot(labels, logits.shape[-1]), logits, weights)
            else:
                mean = self.loss(labels, self.activation(logits), weights)
        variables = self.network.trainable_variables
        self.optimizer.apply(tape.gradient(mean, variables), variables)
        return mean * tf.cast(tf.shape(labels)[0], tf.float32), _hits(labels, logits)

    def _test_batch(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = self.network(_scale(images), training=False)
        losses = keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        return tf.reduce_sum(losses), _hits(labels, logits)


def _scale(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(images, tf.float32) * np.float32(SCALE)


def _hits(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(tf.argmax(logits, -1, tf.int32) == labels, tf.float32))


def _assign(variables: Sequence[keras.Variable], values: Sequence[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _values(owner: keras.Model | keras.optimizers.Optimizer) -> Arrays:
    return [keras.ops.convert_to_numpy(variable) for variable in owner.variables]
