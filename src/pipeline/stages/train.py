"""train: trains a model on the processed images and writes it as Keras and ONNX files, with its history."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.history import Epoch, History, Trained, write_history
from pipeline.artifacts.onnx_file import Description, RunName, write
from pipeline.artifacts.processed import Dataset, read_split, read_training_dataset, refuse_damaged_splits
from pipeline.artifacts.workspace import Workspace, sha256
from pipeline.config.schema import Config
from pipeline.config.section import ModelSection, ReaderSection
from pipeline.console import percent, say, track_epochs
from pipeline.environment import use
from pipeline.errors import PrunedError
from pipeline.evaluation.metrics import Predictions, macro_f1
from pipeline.evaluation.unlike import measure
from pipeline.models import build, inference_model, is_faster_with_xla, thaw
from pipeline.training.backends import keep_compiled, quick_compilation
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.onnx_process import Export, exporter

if TYPE_CHECKING:
    import keras

    from pipeline.training.batches import Split
    from pipeline.training.loop import FineTune


@dataclass(frozen=True)
class Fitted:
    """A finished training whose model has not been written yet."""

    model: "keras.Model"  # from uint8 images to probabilities
    history: History
    dataset: Dataset
    train: "Split"
    held_out: NDArray[np.uint8]  # the validation images, or the training images if there are none
    validation: NDArray[np.int32] | None  # the labels of the validation images
    checkpoints: Checkpoints
    cpu_seconds: float


def run(
    config: Config,
    workspace: Workspace,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    named: RunName = RunName(),  # noqa: B008 (it is frozen)
) -> Trained:
    """Train `config.model` and write models/model.keras, models/model.onnx and models/history.csv.

    Args:
        config: seed, model and train.
        workspace: contains data/processed; the test images are not read.
        on_epoch: called after each epoch.
        named: the run that the model belongs to.

    Raises:
        PipelineError: If the training diverges, data are missing or damaged, the model can't be exported, or
            the device does not exist.
    """
    with _exporter(config.train.backend) as export:
        fitted = fit_model(config, workspace, on_epoch)
        from pipeline.artifacts import model_file

        model, dataset = fitted.model, fitted.dataset
        digest = model_file.weights_digest(model)
        description = Description(
            run=named,
            data=dataset.name,
            classes=dataset.classes,
            image_shape=dataset.image_shape,
            reader=ReaderSection.model_validate(dataset.reader),
            weights_sha256=digest,
        )
        exported, classifier = export(model, description, fitted.held_out)
    shape = (-1, *dataset.image_shape)
    held_out, f1 = None, None
    if fitted.validation is not None:
        held_out = fitted.held_out.reshape(shape)
        scores = classifier.probabilities(held_out)
        f1 = macro_f1(Predictions(dataset.classes, fitted.validation, scores))
    unlike = measure(classifier, fitted.train[0].reshape(shape), held_out)
    write(workspace.onnx, exported, description.model_copy(update={"unlike": unlike}))
    model_file.save(model, workspace.model)
    write_history(workspace.history, fitted.history)
    fitted.checkpoints.discard()
    return Trained(
        weights_sha256=digest,
        onnx_sha256=sha256(workspace.onnx),
        parameters=model.count_params(),
        epochs=len(fitted.history.epochs),
        best_epoch=fitted.history.best_epoch,
        val_macro_f1=f1,
        cpu_seconds=round(fitted.cpu_seconds, 2),
    )


def _exporter(backend: str) -> "AbstractContextManager[Export]":
    if backend != "tensorflow":
        return exporter()
    from pipeline.training.onnx_export import export

    return nullcontext(export)


def fit_model(
    config: Config, workspace: Workspace, on_epoch: Callable[[Epoch], None] = lambda epoch: None
) -> Fitted:
    """Train without writing a model; with JAX this does not need TensorFlow to be installed."""
    # Not at the top: Keras must be configured before it is imported.
    import keras

    from pipeline.training.loop import fit

    dataset = read_training_dataset(workspace)
    refuse_damaged_splits(workspace, dataset, "train", "validation")
    checkpoints = Checkpoints.of(config, workspace)
    train, validation = read_split(workspace, "train"), read_split(workspace, "validation")
    use(config.train.target)
    keep_compiled(config.train.target, workspace.scratch / "compiled")
    keras.utils.set_random_seed(config.seed)
    with quick_compilation(config.train.target):
        network = build(config.model, dataset.image_shape, len(dataset.classes))
    say(
        f"Training {config.model.name} with {network.count_params():,} parameters on {len(train[1]):,} "
        f"images, {len(validation[1]):,} for validation."
    )
    settings = config.train
    if settings.xla is None:
        settings = settings.model_copy(update={"xla": is_faster_with_xla(config.model)})
    with track_epochs(settings.epochs, ceil(len(train[1]) / settings.batch_size)) as progress:

        def report(epoch: Epoch) -> None:
            progress.end_epoch(epoch.epoch, _line(epoch))
            try:
                on_epoch(epoch)
            except PrunedError:
                checkpoints.discard()
                raise

        history = fit(
            network,
            train,
            validation,
            settings,
            image_shape=dataset.image_shape,
            seed=config.seed,
            head=config.model.head,
            on_epoch=report,
            on_steps=progress.advance,
            checkpoints=checkpoints,
            fine_tune=_fine_tune(config.model),
        )
    return Fitted(
        inference_model(network, dataset.image_shape),
        history,
        dataset,
        train,
        held_out=validation[0] if len(validation[1]) else train[0],
        validation=validation[1] if len(validation[1]) else None,
        checkpoints=checkpoints,
        cpu_seconds=checkpoints.cpu_seconds,
    )


def _fine_tune(model: ModelSection) -> "FineTune | None":
    from pipeline.training.loop import FineTune

    settings, release = model.model_dump(), thaw(model)
    epoch = settings.get("fine_tune_from")
    return FineTune(epoch, settings["fine_tune_rate"], release) if epoch and release else None


def _line(epoch: Epoch) -> str:
    line = f"loss {epoch.train_loss:.4f}, accuracy {percent(epoch.train_accuracy)}"
    if epoch.val_loss is not None and epoch.val_accuracy is not None:
        line += f", validation loss {epoch.val_loss:.4f}, accuracy {percent(epoch.val_accuracy)}"
    return line
