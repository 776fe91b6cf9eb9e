"""`pipeline export`: the model in a format of other tools, checked on real images before it gets its name."""

import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.onnx_file import Classifier, load
from pipeline.artifacts.processed import read_dataset, read_split
from pipeline.artifacts.workspace import Workspace
from pipeline.errors import PipelineError
from pipeline.serving.reference import resolve

Format = Literal["onnx", "keras", "litert", "saved-model"]
Probabilities = NDArray[np.float32]
_SUFFIXES: Mapping[Format, str] = {"onnx": ".onnx", "keras": ".keras", "litert": ".tflite", "saved-model": ""}
_IMAGES = 200
_LARGEST_DIFFERENCE = 1e-5


def export(ref: str | None, form: Format, path: Path, workspace: Workspace) -> str:
    """Write a model in another format.

    Args:
        ref: None: the workspace's model. A run or a version in the registry.
        form: the format.
        path: of the file, or of the folder of a SavedModel; there must be nothing.
        workspace: has images to check the result on.

    Returns:
        A line that says what was written and how it was checked.

    Raises:
        PipelineError: there is no such model, something is at `path`, there are no images of the data set, or
            the result does not compute the same.
    """
    if path.exists():
        raise PipelineError(f"There is something at {path} already: delete it, or name another path.")
    if ref is not None and Path(ref).is_file():
        raise PipelineError(f"{ref} is a file: a model is exported from the workspace or by its run's name.")
    if not path.absolute().parent.is_dir():
        raise PipelineError(f"There is no folder {path.absolute().parent}.")
    source = resolve(ref, workspace).path
    classifier = load(source)
    images = _images(classifier, workspace)
    expected = classifier.probabilities(images)
    # Beside its place, so that it is renamed and not copied.
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=".export-") as folder:
        made = Path(folder) / f"model{_SUFFIXES[form]}"
        if form == "onnx":
            shutil.copyfile(source, made)
            found = load(made).probabilities(images)
        else:
            found = _by_tensorflow(form, resolve(ref, workspace, part="model.keras").path, made, images)
        difference = float(np.abs(found - expected).max())
        if not difference <= _LARGEST_DIFFERENCE or (found.argmax(1) != expected.argmax(1)).any():
            raise PipelineError(
                f"The {form} export does not compute what the model does: over {len(images)} images a "
                f"probability differs by {difference:.2g}. Nothing was written."
            )
        made.rename(path)
    return f"Wrote {path}: over {len(images)} images no probability differs by more than {difference:.1g}."


def _images(classifier: Classifier, workspace: Workspace) -> NDArray[np.uint8]:
    """Some images of the data set that the model is for."""
    description = classifier.description
    dataset = read_dataset(workspace)
    if (dataset.name, dataset.image_shape) != (description.data, description.image_shape):
        raise PipelineError(
            f"The model is for {description.data}, but data/processed has {dataset.name}: choose that in "
            "conf/ and run `dvc repro`, so that the export can be checked on its images."
        )
    images, _ = read_split(workspace, "test")
    return np.ascontiguousarray(images[:_IMAGES]).reshape(-1, *dataset.image_shape)


def _by_tensorflow(form: Format, source: Path, made: Path, images: NDArray[np.uint8]) -> Probabilities:
    """Write `made`, and compute with what was written."""
    from pipeline.environment import import_keras, quiet_tensorflow

    with quiet_tensorflow():
        import_keras()
        from pipeline.artifacts import model_file
    model = model_file.load(source)
    # Keras refuses to export what was never called.
    model(images[:1])
    compute: Mapping[Format, Callable[[], Probabilities]] = {
        "keras": lambda: _keras(source, made, images),
        "saved-model": lambda: _saved_model(model, made, images),
        "litert": lambda: _litert(model, made, images),
    }
    with warnings.catch_warnings(), quiet_tensorflow():
        # TensorFlow's interpreter is to move to a package of its own.
        warnings.simplefilter("ignore")
        return compute[form]()


def _keras(source: Path, made: Path, images: NDArray[np.uint8]) -> Probabilities:
    from pipeline.artifacts import model_file

    shutil.copyfile(source, made)
    return np.asarray(model_file.load(made)(images))


def _saved_model(model: Any, made: Path, images: NDArray[np.uint8]) -> Probabilities:
    import tensorflow as tf

    model.export(made, format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(str(made))
    return np.asarray(loaded.serve(images))


def _litert(model: Any, made: Path, images: NDArray[np.uint8]) -> Probabilities:
    import tensorflow as tf

    model.export(made, format="litert", verbose=False)
    interpreter = tf.lite.Interpreter(str(made), num_threads=1)
    interpreter.allocate_tensors()
    [taken], [given] = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    # Its batch is of one image.
    for image in images:
        interpreter.set_tensor(taken["index"], image[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(given["index"])[0])
    return np.stack(rows)
