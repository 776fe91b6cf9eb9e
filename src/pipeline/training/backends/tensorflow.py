"""The TensorFlow backend: an epoch is a few compiled calls over batches that are contiguous in memory."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.artifacts.processed import SCALE
from pipeline.training import program
from pipeline.training.augment import augment
from pipeline.training.batches import Batches, Split, gather
from pipeline.training.portable import portable


class Program(program.Program):
    """The arithmetic of a training as TensorFlow functions."""

    def __init__(self, *arguments: Any) -> None:
        """Prepare the program; `of` reuses a compiled one if possible."""
        super().__init__(*arguments)
        xla = bool(self.config.xla)
        self._compiled_steps = tf.function(self._over_batches, autograph=False, jit_compile=xla)
        self._rest = tf.function(self._over_batches, autograph=False)
        self._test = tf.function(self._test_batch, autograph=False)

    def layer(self, precision: str, layer: keras.layers.Layer) -> keras.layers.Layer:
        """Return the layer to compute with in place of `layer`."""
        return portable(layer, super().layer(precision, layer))

    def lay_out(self, train: Split, chosen: NDArray[np.int64], rng: np.random.Generator | None) -> Batches:
        """Gather batches: uint8 (steps, batch, pixels) and int32 (steps, batch)."""
        images, labels = train
        batches = gather(images, chosen.ravel())
        if rng:
            batches = augment(batches, self.image_shape, self.config.augment, rng)
        return tf.constant(batches.reshape(*chosen.shape, -1)), tf.constant(labels[chosen])

    def train(self, batches: Batches, whole: bool, on_steps: Callable[[int], None]) -> tuple[float, float]:
        """Train on batches, about half a second at a time."""
        images, labels = batches
        run = self._compiled_steps if whole else self._rest
        sums = tf.constant(0.0), tf.constant(0.0)
        for start, stop in self.portions(len(images), on_steps):
            # The sums are passed on, so that rounding does not depend on how the steps are divided.
            sums = run(images, labels, tf.constant(start), tf.constant(stop), *sums)
            tf.nest.map_structure(float, sums)
        loss, correct = sums
        return float(loss), float(correct)

    def sums(self, images: NDArray[np.uint8], labels: NDArray[np.int32]) -> tuple[Any, Any]:
        """Return the sums of losses, in nats, and of correct predictions on uint8 images (n, pixels)."""
        losses, hits = self._test(tf.constant(images), tf.constant(labels))
        return losses, hits

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

        # Not a Python loop: autograph leaves a file in TMPDIR for each function that it converts.
        _, loss, correct = tf.while_loop(lambda step, *_: step < stop, one_more, (start, loss, correct))
        return loss, correct

    def _train_batch(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = self._logits(images, training=True)
            mean = self.mean_loss(labels, logits)
        variables = self.network.trainable_variables
        self.optimizer.apply(tape.gradient(mean, variables), variables)
        return mean * tf.cast(tf.shape(labels)[0], tf.float32), _hits(labels, logits)

    def _test_batch(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = self._logits(images, training=False)
        losses = keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        return tf.reduce_sum(losses), _hits(labels, logits)

    def _logits(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        scaled = tf.cast(images, tf.float32) * np.float32(SCALE)
        return tf.cast(self.network(scaled, training=training), tf.float32)


def _hits(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(tf.argmax(logits, -1, tf.int32) == labels, tf.float32))
