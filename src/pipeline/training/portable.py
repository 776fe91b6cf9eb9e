"""Replacements for Keras layers on TensorFlow that compute the same bits on every processor."""

import math

import keras
import tensorflow as tf


def portable(layer: keras.layers.Layer, copied: keras.layers.Layer) -> keras.layers.Layer:
    """Return a layer that computes the same as `layer`, with the same bits on every processor if possible.

    Args:
        layer: a layer of a network.
        copied: a copy of it that is not part of a network; returned if there is no replacement.
    """
    if type(layer) is keras.layers.BatchNormalization and _is_usual(layer):
        return _BatchNormalization.from_config(copied.get_config())
    if getattr(copied, "activation", None) is keras.activations.gelu:
        copied.activation = _gelu
    return copied


def _is_usual(layer: keras.layers.BatchNormalization) -> bool:
    last = len(layer.input.shape) - 1
    return layer.scale and layer.center and not layer.renorm and layer.axis in (-1, last)


class _BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]  # Keras is not typed.
    """Keras's layer without TensorFlow's rsqrt, which each vendor's processors approximate differently."""

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: None = None) -> tf.Tensor:
        pixels = tf.cast(inputs, tf.float32)
        mean, variance = self.moving_mean.value, self.moving_variance.value
        if training and self.trainable:
            mean, variance = tf.nn.moments(pixels, list(range(len(pixels.shape) - 1)))
            for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + value * (1 - self.momentum))
        # TensorFlow would replace an ordinary division by a square root with a multiplication by rsqrt.
        scale = tf.math.divide_no_nan(self.gamma.value, tf.sqrt(variance + self.epsilon))
        return tf.cast(pixels * scale + (self.beta - mean * scale), self.compute_dtype)


def _gelu(x: tf.Tensor) -> tf.Tensor:
    """Keras's function without erfc, which is approximated differently, too."""
    return 0.5 * x * (1 + tf.math.erf(x * math.sqrt(0.5)))
