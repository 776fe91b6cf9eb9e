"""The interface between the fit loop and a backend, with the parts that all backends share."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Self

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import TrainSection
from pipeline.training.batches import Batches, Split
from pipeline.training.optimizer import make_optimizer

VALIDATION_BATCH = 2000
SECONDS_AT_ONCE = 0.5

Arrays = list[NDArray[np.generic]]


class Program(ABC):
    """The compiled arithmetic of a training.

    Consecutive trainings that differ only in the seed or the learning rate, as in a sweep, share one program:
    it has its own network and optimizer, into which the values of each training are copied.
    """

    _latest: ClassVar["tuple[str, Program] | None"] = None

    def __init__(
        self,
        network: keras.Model,
        config: TrainSection,
        steps: int,
        head: str,
        image_shape: tuple[int, ...],
        class_weights: tuple[float, ...] | None,
    ) -> None:
        """Prepare the program; `of` reuses a compiled one if possible."""
        self.network = keras.models.clone_model(network, clone_function=partial(self.layer, config.precision))
        self.optimizer = make_optimizer(config, steps)
        self.optimizer.build(self.network.trainable_variables)
        self.activation = keras.activations.get("sigmoid" if head == "sigmoid" else "linear")
        self.loss = keras.losses.SparseCategoricalCrossentropy(from_logits=head != "sigmoid")
        self.smoothed = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=config.label_smoothing
        )
        self.config = config
        self.image_shape = image_shape
        self.class_weights = class_weights and np.array(class_weights, np.float32)
        self._steps_at_once = 32

    @classmethod
    def of(
        cls,
        network: keras.Model,
        config: TrainSection,
        steps: int,
        head: str,
        image_shape: tuple[int, ...],
        class_weights: tuple[float, ...] | None = None,
    ) -> Self:
        """Return a program with the values of `network` and a new optimizer: the latest one if it fits."""
        optimizer = make_optimizer(config, steps)
        optimizer.build(network.trainable_variables)
        # A constant learning rate is a variable, and Keras numbers the names.
        variable = {"name", "learning_rate"} if config.schedule == "constant" else {"name"}
        fixed = {key: value for key, value in optimizer.get_config().items() if key not in variable}
        settings = config.optimizer, config.label_smoothing, config.xla, config.devices, config.precision
        design = repr(
            (cls.__module__, network.get_config(), fixed, settings, head, image_shape, class_weights)
        )
        latest = Program._latest
        if latest is not None and latest[0] == design:
            program = latest[1]
            program.config = config
        else:
            # Free the memory of the previous program before the next one is compiled.
            latest = Program._latest = None
            program = cls(network, config, steps, head, image_shape, class_weights)
            Program._latest = design, program
        assign(program.network.variables, network.variables)
        assign(program.optimizer.variables, optimizer.variables)
        assert isinstance(program, cls)
        return program

    def layer(self, precision: str, layer: keras.layers.Layer) -> keras.layers.Layer:
        """Return the layer to compute with in place of `layer`; its weights are float32 even in bfloat16."""
        settings = layer.get_config()
        if precision == "bfloat16" and not isinstance(layer, keras.Model):
            settings |= {"dtype": "mixed_bfloat16"}
        return type(layer).from_config(settings)

    # --- the arithmetic ---------------------------------------------------------------------------

    @abstractmethod
    def lay_out(self, train: Split, chosen: NDArray[np.int64], rng: np.random.Generator | None) -> Batches:
        """Gather images and labels into batches, in the form that `train` takes.

        Args:
            train: uint8 images (n, pixels) and int32 labels (n,); may be memory-mapped.
            chosen: indices of the images, (steps, batch).
            rng: the source of random numbers for augmentation; None for no augmentation.
        """

    @abstractmethod
    def train(self, batches: Batches, whole: bool, on_steps: Callable[[int], None]) -> tuple[float, float]:
        """Train on batches, one after the other, and return the sums of losses and of correct predictions.

        Args:
            batches: the result of `lay_out`.
            whole: whether the batches have the configured size, for which compiling pays off.
            on_steps: called regularly with the number of steps since the last call; it may raise.
        """

    @abstractmethod
    def sums(self, images: NDArray[np.uint8], labels: NDArray[np.int32]) -> tuple[Any, Any]:
        """Return the sums of losses, in nats, and of correct predictions on uint8 images (n, pixels)."""

    def portions(self, steps: int, on_steps: Callable[[int], None]) -> Iterator[tuple[int, int]]:
        """Yield the bounds (start, stop) of portions of the steps that take about half a second each.

        Args:
            steps: the total number of steps.
            on_steps: called with the size of each portion once it is done; it may raise.
        """
        start = 0
        while start < steps:
            began = time.monotonic()
            stop = min(start + self._steps_at_once, steps)
            yield start, stop
            seconds = time.monotonic() - began
            self._steps_at_once = max(1, int((stop - start) * SECONDS_AT_ONCE / max(seconds, 1e-3)))
            on_steps(stop - start)
            start = stop

    def test(self, split: Split) -> tuple[float | None, float | None]:
        """Return mean loss, in nats, and accuracy on uint8 images (n, pixels) with labels; None if n is 0."""
        images, labels = split
        if not len(labels):
            return None, None
        loss = correct = 0.0
        for start in range(0, len(labels), VALIDATION_BATCH):
            part = slice(start, start + VALIDATION_BATCH)
            batch_loss, batch_correct = self.sums(images[part], labels[part])
            loss += float(batch_loss)
            correct += float(batch_correct)
        return loss / len(labels), correct / len(labels)

    def mean_loss(self, labels: Any, logits: Any) -> Any:
        """Return the loss that a step minimises, from int32 (batch,) and float32 (batch, classes)."""
        weights = None if self.class_weights is None else keras.ops.take(self.class_weights, labels)
        if self.config.label_smoothing > 0:
            return self.smoothed(keras.ops.one_hot(labels, logits.shape[-1]), logits, weights)
        return self.loss(labels, self.activation(logits), weights)

    # --- values -----------------------------------------------------------------------------------

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        # It is stored in single precision; this gives 0.001 and not 0.0010000000474974513.
        return float(f"{float(self.optimizer.learning_rate):.7g}")

    def weights(self) -> Arrays:
        """Return the current weights of the network."""
        weights: Arrays = self.network.get_weights()
        return weights

    def variables(self) -> tuple[Arrays, Arrays]:
        """Return all variables of the network, including non-trainable state, and of the optimizer."""
        return _values(self.network), _values(self.optimizer)

    def restore(self, network: Arrays, optimizer: Arrays) -> None:
        """Restore the values returned by `variables`."""
        assign(self.network.variables, network)
        assign(self.optimizer.variables, optimizer)

    def copy_to(self, network: keras.Model) -> None:
        """Copy the values of all variables to a network of the same architecture."""
        assign(network.variables, self.network.variables)

    def finish(self, best_weights: Arrays) -> None:
        """Set the final weights of the network: `best_weights` if there are any, else the averages."""
        if best_weights:
            self.network.set_weights(best_weights)
        else:
            self.optimizer.finalize_variable_values(self.network.trainable_variables)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the moving averages of the weights within this context, if the optimizer keeps them."""
        weights = self.network.get_weights() if self.optimizer.use_ema else None
        self.optimizer.finalize_variable_values(self.network.trainable_variables)
        yield
        if weights:
            self.network.set_weights(weights)

    def seed_dropout(self, seed: int, epoch: int) -> None:
        """Derive the dropout masks of an epoch from the seed and its number alone."""
        states = [variable for variable in self.network.variables if "seed_generator" in variable.path]
        for number, state in enumerate(states):
            state.assign(np.random.SeedSequence([seed, epoch, number]).generate_state(2))


def assign(variables: Sequence[keras.Variable], values: Sequence[Any]) -> None:
    """Assign a value to each variable."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _values(owner: keras.Model | keras.optimizers.Optimizer) -> Arrays:
    return [keras.ops.convert_to_numpy(variable) for variable in owner.variables]
