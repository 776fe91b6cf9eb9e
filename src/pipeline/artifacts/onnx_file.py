"""Write ONNX files, which contain the model and what is needed to use it, and read untrusted ones safely."""

import os
import textwrap
from collections.abc import Iterator
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError, model_validator

from pipeline.artifacts.workspace import atomic
from pipeline.config.section import ReaderSection, Section
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT = "images", "probabilities"
BATCH = 1000  # Limits memory, which the layers of a model multiply.
_KEY = "pipeline"
_LARGEST = 2**28  # the largest array, in numbers, that a step may compute for one image


class RunName(Section):
    """The run that trained a model, as in models/run.json; the defaults stand for an unknown one."""

    id: str = ""
    name: str = "unnamed"


class Unlike(Section):
    """How to recognise images that are unlike the training images; see `pipeline.evaluation.unlike`."""

    threshold: float
    # The share of images like the training images that exceed the threshold, and on how many it was measured.
    false_alarm_rate: float
    images: int
    # The highest pixel value in the training images.
    brightest: int
    # Statistics of the training images' properties: (properties,) and (properties * properties,).
    mean: tuple[float, ...]
    precision: tuple[float, ...]

    @model_validator(mode="after")
    def _precision_is_a_square(self) -> Self:
        if len(self.precision) != len(self.mean) ** 2:
            raise ValueError("precision and mean do not fit")
        return self

    @cached_property
    def mean_array(self) -> NDArray[np.float64]:
        """`mean` as float64 (properties,)."""
        return np.array(self.mean)

    @cached_property
    def precision_array(self) -> NDArray[np.float64]:
        """`precision` as float64 (properties, properties)."""
        return np.array(self.precision).reshape(len(self.mean), -1)


class Description(Section):
    """The description of a model in the metadata of its ONNX file."""

    run: RunName
    data: str
    classes: tuple[str, ...]
    # (height, width) or (height, width, channels).
    image_shape: tuple[int, ...]
    # How a picture becomes an image.
    reader: ReaderSection
    # The digest of the Keras model by `pipeline.artifacts.model_file.weights_digest`.
    weights_sha256: str
    unlike: Unlike | None = None


class Classifier:
    """A model that is ready to predict, in one thread; the same images give the same bits."""

    def __init__(self, description: Description, content: bytes, fast: bool = False) -> None:
        """Prepare a model from the checked bytes of a file; `load` reads and checks a file.

        Args:
            description: The description in the file.
            content: The bytes of the file.
            fast: Make convolutions twice as fast; their last bits then depend on the kind of processor.

        Raises:
            PipelineError: If ONNX Runtime cannot compute the model.
        """
        # Set here for notebooks too, whose environment is not prepared.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # Failures raise exceptions.
        if not fast:
            # Without the memory layout that depends on the width of the processor's registers.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        self.description = description
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise PipelineError(f"ONNX Runtime refuses the model: {_reason(error)}") from None

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Predict the class probabilities of images.

        Args:
            images: uint8 (n, height, width) or (n, height, width, channels).

        Returns:
            float32 (n, classes).

        Raises:
            PipelineError: If the images have another dtype or shape, or ONNX Runtime fails.
        """
        shape = self.description.image_shape
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            raise PipelineError(
                f"The model takes uint8 images of shape (n, {', '.join(map(str, shape))}), these are "
                f"{images.dtype} {images.shape}."
            )
        rows = np.empty((len(images), len(self.description.classes)), np.float32)
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            try:
                (rows[part],) = self._session.run([OUTPUT], {INPUT: images[part]})
            # The runtime's exceptions have no other common base class.
            except Exception as error:
                raise PipelineError(f"ONNX Runtime can't compute the model: {_reason(error)}") from None
        # Which denormal numbers softmax returns depends on the processor.
        rows[rows < np.finfo(np.float32).tiny] = 0
        return rows


def _reason(error: Exception) -> str:
    return textwrap.shorten(str(error), 200, placeholder=" ...")


def write(path: Path, model: "onnx.ModelProto", description: Description) -> None:
    """Write `model` with `description` in its metadata; equal arguments give equal bytes."""
    del model.metadata_props[:]
    model.metadata_props.add(key=_KEY, value=description.model_dump_json())
    with atomic(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def load(path: Path, fast: bool = False) -> Classifier:
    """Read what `write` wrote; no other file is read, even if this one refers to it.

    Args:
        path: The file.
        fast: See `Classifier`.

    Raises:
        PipelineError: If the file is missing, is not a complete ONNX file, has weights in other files, is not
            from this pipeline, or needs far too much memory.
    """
    import onnx

    if not path.is_file():
        raise PipelineError(f"There is no model at {path}: `dvc repro` trains one.")
    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    # Protobuf's exceptions, whose types depend on how it was built.
    except Exception:
        raise PipelineError(f"{path} is not a whole ONNX file: restore or retrain it.") from None
    if any(tensor.data_location or tensor.external_data for tensor in _tensors(model)):
        raise PipelineError(f"{path} has weights in other files: it is refused.")
    description = _description(path, model)
    _refuse_other_interface(path, model, description)
    _refuse_huge(path, model)
    try:
        return Classifier(description, content, fast)
    except PipelineError as error:
        raise PipelineError(f"{path} can't be used. {error}") from None


def _description(path: Path, model: "onnx.ModelProto") -> Description:
    found = {item.key: item.value for item in model.metadata_props}
    if _KEY not in found:
        raise PipelineError(f"{path} is not a model of this pipeline: its metadata have no key `{_KEY}`.")
    try:
        return Description.model_validate_json(found[_KEY])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise PipelineError(
            f"{path} has damaged metadata ({where}: {first['msg']}): restore or retrain it."
        ) from None


def _refuse_other_interface(path: Path, model: "onnx.ModelProto", description: Description) -> None:
    import onnx

    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [_interface(value) for value in model.graph.input if value.name not in weights]
    outputs = [_interface(value) for value in model.graph.output]
    types = onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT
    expected = [(INPUT, types[0], description.image_shape)], [(OUTPUT, types[1], (len(description.classes),))]
    if (inputs, outputs) != expected:
        raise PipelineError(
            f"{path} does not map images of shape {description.image_shape} to the probabilities of "
            f"{len(description.classes)} classes, as its metadata say: it is refused."
        )


def _refuse_huge(path: Path, model: "onnx.ModelProto") -> None:
    """Refuse a model that declares arrays larger than any image needs, without allocating them."""
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:
        raise PipelineError(f"{path} is not a consistent model: {_reason(error)}") from None
    for value in inferred.value_info:
        # An unknown size, such as the number of images, counts as one.
        size = prod(max(part.dim_value, 1) for part in value.type.tensor_type.shape.dim)
        if size > _LARGEST:
            raise PipelineError(f"{path} computes an array of {size:,} numbers: it is refused.")


def _interface(value: "onnx.ValueInfoProto") -> tuple[str, int, tuple[int, ...]]:
    """Return name, type and shape, without the number of images."""
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, tuple(size.dim_value for size in tensor.shape.dim[1:])


def _tensors(model: "onnx.ModelProto") -> Iterator["onnx.TensorProto"]:
    """Yield every constant of the model, including those of its functions and of nested graphs."""
    for function in model.functions:
        yield from _of_nodes(function.node)
    yield from _of_graph(model.graph)


def _of_graph(graph: "onnx.GraphProto") -> Iterator["onnx.TensorProto"]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Any) -> Iterator["onnx.TensorProto"]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from _of_graph(graph)
