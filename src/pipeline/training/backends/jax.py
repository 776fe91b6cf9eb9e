"""The JAX backend: images and augmentation are on the device, and the steps of a slice are one call."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from pipeline.artifacts.processed import SCALE
from pipeline.training import program
from pipeline.training.augment import draw
from pipeline.training.backends._distortion import distort
from pipeline.training.batches import Batches, Split, gather

_DISTORTED_AT_ONCE = 4096  # images
UNROLLED = 1  # steps that are compiled together


class Program(program.Program):
    """The arithmetic of a training as JAX functions; between calls the state is in Keras variables.

    With several devices, each has all weights and a part of each batch; sums over a batch, such as gradients
    and the moments of batch normalisation, include all devices.
    """

    def __init__(self, *arguments: Any) -> None:
        """Prepare the program; `of` reuses a compiled one if possible."""
        super().__init__(*arguments)
        # A sigmoid head changes nothing (docs/model.md): Keras uses the logits below it, except on JAX.
        self.activation = keras.activations.get("linear")
        self.loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        devices = jax.devices()[: self.config.devices]
        mesh = Mesh(np.array(devices), ("images",))
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._divided = NamedSharding(mesh, PartitionSpec(None, "images"))
        self._resident: tuple[Any, Any] | None = None  # the training images: on the host, and on the device
        # On a GPU the number of steps is a constant of the program, since checking a condition after each
        # step takes longer than the step. Epochs on a CPU take longer and are interrupted between steps.
        self._on_card = devices[0].platform != "cpu"
        self._compiled: dict[tuple[int, ...], Future[Any]] = {}
        self._one_at_a_time = threading.Lock()
        self._test = jax.jit(self._test_batch)
        self._rate = jax.jit(self._rate_after)

    def layer(self, precision: str, layer: keras.layers.Layer) -> keras.layers.Layer:
        """Return the layer to compute with in place of `layer`."""
        copied = super().layer(precision, layer)
        if type(layer) is keras.layers.MaxPooling2D and _halves(layer):
            return _Halving.from_config(copied.get_config())
        return copied

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step; compiled, since Keras schedules are slow on a GPU."""
        return float(f"{float(self._rate(self.optimizer.iterations.value)):.7g}")

    def _rate_after(self, iterations: Any) -> Any:
        with keras.StatelessScope([(self.optimizer.iterations, iterations)]):
            return self.optimizer.learning_rate + 0.0

    def lay_out(self, train: Split, chosen: NDArray[np.int64], rng: np.random.Generator | None) -> Batches:
        """Gather batches on the device: uint8 (steps, batch, pixels) and int32 (steps, batch)."""
        images, labels = train
        steps, batch = chosen.shape
        drawn = None
        if rng:
            drawn = draw(chosen.size, self.config.augment, rng)
            drawn = jax.tree.map(lambda part: part.reshape(steps, batch, *part.shape[1:]), drawn)
        if images.nbytes <= self.config.slice_megabytes * 2**20:
            held, index = self._held(images), chosen
        else:
            held, index = gather(images, chosen.ravel()), np.arange(chosen.size).reshape(chosen.shape)
        # A short last batch is not divided among devices.
        place = self._divided if batch == self.config.batch_size else self._everywhere
        taken = jax.device_put((held, index.astype(np.int32), drawn), self._everywhere)
        batches = _lay_out(*taken, self.image_shape, place), jax.device_put(labels[chosen], place)
        self._compile(batches)
        return batches

    def _held(self, images: NDArray[np.uint8]) -> Any:
        """Return the training images on the device, where they are kept for the training."""
        if self._resident is None or self._resident[0] is not images:
            self._resident = None
            self._resident = images, jax.device_put(np.asarray(images), self._everywhere)
        return self._resident[1]

    def _compile(self, batches: Batches) -> "Future[Any]":
        """Start to compile the steps for batches of this shape; two shapes are compiled at the same time."""
        form = batches[0].shape
        if form not in self._compiled:
            thread = ThreadPoolExecutor(1)
            self._compiled[form] = thread.submit(self._steps_of, *batches)
            thread.shutdown(wait=False)
        return self._compiled[form]

    def _steps_of(self, images: Any, labels: Any) -> Any:
        """Return the compiled function of images, labels, state and, on a CPU, first and last step."""
        bounds = (0, len(images)) if self._on_card else (np.int32(0), np.int32(0))
        steps = jax.jit(self._over_batches, static_argnums=(3, 4) if self._on_card else ())
        # While Keras traces a network, it keeps state in the network.
        with self._one_at_a_time:
            lowered = steps.lower(images, labels, self._state(), *bounds)
        return lowered.compile()

    def _state(self) -> Any:
        """Return the values of the variables and two sums of zero, on the devices."""
        values = [[variable.value for variable in variables] for variables in self._owned]
        return jax.device_put((*values, (np.float32(0), np.float32(0))), self._everywhere)

    @property
    def _owned(self) -> Any:
        network = self.network
        return network.trainable_variables, network.non_trainable_variables, self.optimizer.variables

    def train(self, batches: Batches, whole: bool, on_steps: Callable[[int], None]) -> tuple[float, float]:
        """Train on batches, on a CPU about half a second at a time."""
        images, labels = batches
        run = self._compile(batches).result()
        state = self._state()
        if self._on_card:
            state = jax.block_until_ready(run(images, labels, state))
            on_steps(len(images))
        else:
            for start, stop in self.portions(len(images), on_steps):
                # The sums are passed on, so that rounding does not depend on how the steps are divided.
                bounds = np.int32(start), np.int32(stop)
                state = jax.block_until_ready(run(images, labels, state, *bounds))
        *values, (loss, correct) = state
        for variables, changed in zip(self._owned, values, strict=True):
            program.assign(variables, changed)
        return float(loss), float(correct)

    def sums(self, images: NDArray[np.uint8], labels: NDArray[np.int32]) -> tuple[Any, Any]:
        """Return the sums of losses, in nats, and of correct predictions on uint8 images (n, pixels)."""
        trainable, others, _, _ = self._state()
        taken = jax.device_put((np.asarray(images), np.asarray(labels)), self._everywhere)
        losses, hits = self._test(trainable, others, *taken)
        return losses, hits

    def _over_batches(self, images: Any, labels: Any, state: Any, start: Any, stop: Any) -> Any:
        def one_more(step: Any, state: Any) -> Any:
            return self._train_batch(images[step], labels[step], *state)

        unrolled = {"unroll": UNROLLED} if self._on_card and len(images) > 1 else {}
        return jax.lax.fori_loop(start, stop, one_more, state, **unrolled)

    def _train_batch(
        self, images: Any, labels: Any, trainable: Any, others: Any, optimizer: Any, sums: Any
    ) -> Any:
        def mean_loss(trainable: Any) -> Any:
            logits, changed = self._logits(trainable, others, images, training=True)
            return self.mean_loss(labels, logits), (logits, changed)

        (mean, (logits, others)), gradients = jax.value_and_grad(mean_loss, has_aux=True)(trainable)
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
        loss, correct = sums
        return trainable, others, optimizer, (loss + mean * len(labels), correct + _hits(labels, logits))

    def _test_batch(self, trainable: Any, others: Any, images: Any, labels: Any) -> tuple[Any, Any]:
        logits, _ = self._logits(trainable, others, images, training=False)
        losses = keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        return losses.sum(), _hits(labels, logits)

    def _logits(self, trainable: Any, others: Any, images: Any, training: bool) -> Any:
        scaled = images.astype(jnp.float32) * np.float32(SCALE)
        logits, others = self.network.stateless_call(trainable, others, scaled, training=training)
        return logits.astype(jnp.float32), others


class _Halving(keras.layers.MaxPooling2D):  # type: ignore[misc] # Keras's own classes are not followed.
    """2×2 max pooling as a maximum along two axes.

    XLA's gradient of a window sums in any order, and is slow if it must be deterministic.
    """

    def call(self, inputs: Any) -> Any:
        _, height, width, channels = inputs.shape
        whole = inputs[:, : height // 2 * 2, : width // 2 * 2]
        return whole.reshape(-1, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def _halves(layer: keras.layers.MaxPooling2D) -> bool:
    settings = layer.get_config()
    found = [settings[name] for name in ("pool_size", "strides", "padding", "data_format")]
    return found == [(2, 2), (2, 2), "valid", "channels_last"]


@partial(jax.jit, static_argnums=(3, 4))
def _lay_out(images: Any, chosen: Any, drawn: Any, image_shape: tuple[int, ...], place: Any) -> Any:
    """Return `images[chosen]` with the drawn distortions, in bounded memory."""

    def one_batch(part: Any) -> Any:
        index, drawn = part
        batch = images[index]
        return batch if drawn is None else distort(batch, image_shape, drawn)

    at_once = max(1, _DISTORTED_AT_ONCE // chosen.shape[1])
    laid_out = jax.lax.map(one_batch, (chosen, drawn), batch_size=at_once)
    return jax.lax.with_sharding_constraint(laid_out, place)


def _hits(labels: Any, logits: Any) -> Any:
    return (logits.argmax(-1) == labels).sum().astype(jnp.float32)
