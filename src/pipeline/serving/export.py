"""`pipeline export`: write the model in another format, and check it on real images."""

import shutil
import tempfile
import warnings
from collections.abc import Mapping
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
_SUFFIXES: Mapping[Format, str] = {"onnx": ".onnx", "keras": ".keras", "litert": ".tflite", "saved-model": ""}
_IMAGES = 200
_LARGEST_DIFFERENCE = 1e-5


def export(ref: str | None, form: Format, path: Path, workspace: Workspace) -> str:
    """Write a model in another format, and return a line that says how it was checked.

    The file gets its name only after its predictions were compared with those of the evaluated model.

    `ref` is a run or a version in the registry; None stands for the workspace's model. The test images of the
    workspace are used to check the result.

    Raises:
        PipelineError: If there is no such model, `path` exists, there are no images of the model's data set,
            or the predictions differ.
    """
    if path.exists():
        raise PipelineError(f"There is already something at {path}: delete it, or choose another path.")
    if ref is not None and Path(ref).is_file():
        raise PipelineError(
            f"{ref} is a file: export the workspace's model, or name a run or a registered version."
        )
    if not path.absolute().parent.is_dir():
        raise PipelineError(f"There is no folder {path.absolute().parent}: create it first.")
    source = resolve(ref, workspace).path
    classifier = load(source)
    images = _images(classifier, workspace)
    expected = classifier.probabilities(images)
    # In the same folder as `path`, so that the result is renamed and not copied.
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
                f"The {form} export does not compute what the model does: on {len(images)} images, "
                f"probabilities differ by up to {difference:.2g}. Nothing was written."
            )
        made.rename(path)
    return f"Wrote {path}: on {len(images)} images, no probability differs by more than {difference:.1g}."


def _images(classifier: Classifier, workspace: Workspace) -> NDArray[np.uint8]:
    """Return some test images of the model's data set, uint8 (n, *image_shape)."""
    description = classifier.description
    dataset = read_dataset(workspace) if workspace.dataset.exists() else None
    if not dataset or (dataset.name, dataset.image_shape) != (description.data, description.image_shape):
        has = f"has {dataset.name}" if dataset else "is empty"
        raise PipelineError(
            f"The model is for {description.data}, but data/processed {has}: choose the model's data set in "
            "conf/ and run `dvc repro preprocess`, so that the export can be checked on its images."
        )
    images, _ = read_split(workspace, "test")
    return np.ascontiguousarray(images[:_IMAGES]).reshape(-1, *dataset.image_shape)


def _by_tensorflow(form: Format, source: Path, made: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Write the export to `made`, and return the probabilities that it computes for `images`."""
    from pipeline.environment import import_keras, quiet_tensorflow

    with quiet_tensorflow():
        import_keras()
        import tensorflow as tf

        from pipeline.artifacts import model_file
    with warnings.catch_warnings(), quiet_tensorflow():
        # TensorFlow warns that its interpreter will move to a separate package.
        warnings.simplefilter("ignore")
        if form == "keras":
            shutil.copyfile(source, made)
            return np.asarray(model_file.load(made)(images))
        model = model_file.load(source)
        # Keras refuses to export a model that was never called.
        model(images[:1])
        if form == "saved-model":
            model.export(made, format="tf_saved_model", verbose=False)
            loaded = tf.saved_model.load(str(made))  # Its function alone would not keep its variables.
            return np.asarray(loaded.serve(images))
        model.export(made, format="litert", verbose=False)
        return _by_litert(tf.lite.Interpreter(str(made), num_threads=1), images)


def _by_litert(interpreter: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    interpreter.allocate_tensors()
    [taken], [given] = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    # The exported model takes one image at a time.
    for image in images:
        interpreter.set_tensor(taken["index"], image[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(given["index"])[0])
    return np.stack(rows)
