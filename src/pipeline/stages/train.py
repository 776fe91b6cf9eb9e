"""train: the processed images become a model, as Keras and as ONNX have it, and the history of its epochs."""

from collections.abc import Callable
from math import ceil

from pipeline.artifacts import model_file
from pipeline.artifacts.history import Epoch, Trained, write_history
from pipeline.artifacts.onnx_file import Description, RunName, write
from pipeline.artifacts.processed import read_dataset, read_split, refuse_damaged_splits
from pipeline.artifacts.workspace import Workspace, sha256
from pipeline.config.schema import Config
from pipeline.config.section import ModelSection, ReaderSection
from pipeline.console import say, track_epochs
from pipeline.environment import use_threads
from pipeline.errors import PrunedError
from pipeline.evaluation.metrics import Predictions, macro_f1
from pipeline.evaluation.unlike import measure
from pipeline.models import build, inference_model, is_faster_with_xla, thaw
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.loop import FineTune, fit
from pipeline.training.onnx_export import export


def run(
    config: Config,
    workspace: Workspace,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    named: RunName = RunName(),  # noqa: B008 (it is frozen)
) -> Trained:
    """Train `config.model` and write models/model.keras, models/model.onnx and models/history.csv.

    Args:
        config: seed, model and train.
        workspace: has data/processed; test images are not touched.
        on_epoch: called after each epoch.
        named: the run that the model is of.

    Raises:
        PipelineError: the training diverged, data are missing or damaged, or the model can't be exported.
    """
    # Not above: pipeline.models sets TensorFlow up before anything imports it.
    import keras

    dataset = read_dataset(workspace)
    refuse_damaged_splits(workspace, dataset, "train", "validation")
    checkpoints = Checkpoints.of(config, workspace)
    train, validation = read_split(workspace, "train"), read_split(workspace, "validation")
    use_threads(config.train.threads)
    keras.utils.set_random_seed(config.seed)
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
    cpu_seconds = checkpoints.cpu_seconds
    model = inference_model(network, dataset.image_shape)
    digest = model_file.weights_digest(model)
    description = Description(
        run=named,
        data=dataset.name,
        classes=dataset.classes,
        image_shape=dataset.image_shape,
        reader=ReaderSection.model_validate(dataset.reader),
        weights_sha256=digest,
    )
    held_out = validation[0] if len(validation[1]) else train[0]
    exported, classifier = export(model, description, held_out)
    shape = (-1, *dataset.image_shape)
    unlike = measure(classifier, train[0].reshape(shape), held_out.reshape(shape))
    f1 = None
    if len(validation[1]):
        scores = classifier.probabilities(validation[0].reshape(shape))
        f1 = macro_f1(Predictions(dataset.classes, validation[1], scores))
    write(workspace.onnx, exported, description.model_copy(update={"unlike": unlike}))
    model_file.save(model, workspace.model)
    write_history(workspace.history, history)
    checkpoints.discard()
    return Trained(
        weights_sha256=digest,
        onnx_sha256=sha256(workspace.onnx),
        parameters=network.count_params(),
        epochs=len(history.epochs),
        best_epoch=history.best_epoch,
        val_macro_f1=f1,
        cpu_seconds=round(cpu_seconds, 2),
    )


def _fine_tune(model: ModelSection) -> FineTune | None:
    settings, release = model.model_dump(), thaw(model)
    epoch = settings.get("fine_tune_from")
    return FineTune(epoch, settings["fine_tune_rate"], release) if epoch and release else None


def _line(epoch: Epoch) -> str:
    line = f"loss {epoch.train_loss:.4f}, accuracy {epoch.train_accuracy:.4f}"
    if epoch.val_loss is not None:
        line += f", validation loss {epoch.val_loss:.4f}, accuracy {epoch.val_accuracy:.4f}"
    return line
