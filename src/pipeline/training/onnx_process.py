"""Export to ONNX in a separate process with TensorFlow, for models that another backend has trained.

tf2onnx needs TensorFlow functions, and a process cannot change the backend of Keras.
"""

import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.onnx_file import Classifier, Description
from pipeline.environment import import_keras, prepare_environment, quiet_tensorflow, use_threads
from pipeline.errors import PipelineError, exit_on_error
from pipeline.processes.system import die_with_parent

if TYPE_CHECKING:
    import keras
    import onnx

_MODEL, _IMAGES, _DESCRIPTION, _EXPORTED = "model.keras", "images.npy", "description.json", "model.onnx"
_GO = "go\n"


Export = Callable[["keras.Model", Description, NDArray[np.uint8]], "tuple[onnx.ModelProto, Classifier]"]


@contextmanager
def exporter() -> Iterator[Export]:
    """Provide `pipeline.training.onnx_export.export`, whatever the backend of this process is.

    The other process starts at once and imports TensorFlow while this one trains. The function raises the
    same errors, and PipelineError if TensorFlow is not installed.
    """
    with tempfile.TemporaryDirectory() as place:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, place],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        try:
            yield functools.partial(_export, process, Path(place))
        finally:
            process.kill()
            process.communicate()


def _export(
    process: "subprocess.Popen[str]",
    folder: Path,
    model: "keras.Model",
    description: Description,
    images: NDArray[np.uint8],
) -> "tuple[onnx.ModelProto, Classifier]":
    import onnx

    from pipeline.artifacts import model_file

    model_file.save(model, folder / _MODEL)
    np.save(folder / _IMAGES, images)
    (folder / _DESCRIPTION).write_text(description.model_dump_json(), encoding="utf-8")
    _, errors = process.communicate(_GO)
    if process.returncode:
        said = errors.strip().removeprefix("error: ") or f"exit code {process.returncode}"
        raise PipelineError(f"The trained model is not exported to ONNX. {said}")
    exported = onnx.load_model(folder / _EXPORTED)
    return exported, Classifier(description, exported.SerializeToString())


def main(folder: Path) -> None:
    """Export the model in `folder`, once it is there, to a file in the same folder."""
    prepare_environment(folder / "home")
    with quiet_tensorflow():
        import_keras()
        import onnx

        from pipeline.artifacts import model_file
        from pipeline.training import onnx_export
    use_threads(1)
    if sys.stdin.readline() != _GO:
        return  # The training failed.
    description = Description.model_validate_json((folder / _DESCRIPTION).read_text(encoding="utf-8"))
    model = model_file.load(folder / _MODEL)
    exported, _ = onnx_export.export(model, description, np.load(folder / _IMAGES))
    onnx.save_model(exported, folder / _EXPORTED)


if __name__ == "__main__":
    die_with_parent()
    with exit_on_error():
        main(Path(sys.argv[1]))
