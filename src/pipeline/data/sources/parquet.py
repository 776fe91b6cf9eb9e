"""Parquet files with Hugging Face image columns or lists of pixels; one file, or a folder with splits."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.console import count
from pipeline.data.batches import PICTURES, Batch, Listing, LocalSource, split_of, tables
from pipeline.data.collect import loader
from pipeline.data.pixels import FEWEST_PIXELS, as_levels, shape_of, without_one_channel
from pipeline.data.table import named_column
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection

_LABELS = ("label", "labels", "class", "target", "category", "fine_label", "digit")


class ParquetSource(LocalSource):
    """`path` is the file, its address, or a folder of files such as train-00000-of-00002.parquet."""

    kind: Literal["parquet"]
    # The column with the class. If None, the one that is called label or similar.
    label_column: str | None = None


def batches(source: ParquetSource, data: "DataSection", home: Path, listing: Listing) -> Iterator[Batch]:
    """Yield the images in the order of the files and rows."""
    import pyarrow
    import pyarrow.parquet

    found = 0
    for _, name, open_file in tables(source.path, data, home, (".parquet",)):
        split = split_of(PurePosixPath(name).stem) or split_of(PurePosixPath(name).parent.name)
        try:
            with open_file() as file:
                table = pyarrow.parquet.ParquetFile(file)
                image, label = _columns(table.schema_arrow, source.label_column, name)
                names = _class_names(table.schema_arrow, label)
                if names:
                    listing.classes = names
                found += 1
                row = 0
                for part in table.iter_batches(PICTURES, columns=[image, label]):
                    labels = _labels(part.column(label), names, name)
                    called = [f"{name} row {row + at + 1}" for at in range(len(part))]
                    yield Batch(called, _content(part.column(image), name), labels, split)
                    row += len(part)
        except (pyarrow.ArrowException, OSError) as error:
            raise PipelineError(
                f"{name} is not a complete Parquet file: {str(error).splitlines()[0]}"
            ) from None
    if not found:
        raise PipelineError("it has no Parquet file")


load = loader(batches)


def _columns(schema: Any, chosen: str | None, name: str) -> tuple[str, str]:
    """Return the names of the columns with the images and with the labels."""
    lowered = {column.lower(): column for column in schema.names}
    label = chosen if chosen else next((lowered[column] for column in _LABELS if column in lowered), None)
    if label is None or label not in schema.names:
        raise PipelineError(
            f"{name} has no {named_column(chosen)}: it has "
            f"{', '.join(schema.names[:9])}; choose one with "
            "--set label_column=NAME"
        )
    if schema.names.count(label) > 1:
        raise PipelineError(f"{name} has several columns that are called {label}: rename all but one")
    # Next to pictures, a list is something else, such as the corners of a box.
    for has_images in (_is_encoded, _is_list):
        for column in schema.names:
            at = schema.get_all_field_indices(column)
            if column != label and has_images(schema.field(at[0]).type):
                if len(at) > 1:
                    raise PipelineError(
                        f"{name} has several columns that are called {column}: rename all but one"
                    )
                return column, label
    raise PipelineError(f"{name} has no image column, with the bytes of pictures or lists of pixels")


def _is_encoded(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_list(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _class_names(schema: Any, label: str) -> tuple[str, ...] | None:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[label]["names"])
    except (KeyError, TypeError, ValueError):
        return None


def _labels(column: Any, names: Sequence[str] | None, name: str) -> Sequence[Any]:
    if column.null_count:
        rows = count(column.null_count, "row")
        raise PipelineError(f"{name} has {rows} without a label: remove them")
    values = column.to_pylist()
    if isinstance(values[0] if values else 0, str):
        return [str(value) for value in values]
    if not all(
        isinstance(value, int) or (isinstance(value, float) and value.is_integer()) for value in values
    ):
        raise PipelineError(f"{name}: its labels are {column.type}, but must be whole numbers or texts")
    values = [int(value) for value in values]
    if names is None:
        return values
    if values and not 0 <= min(values) <= max(values) < len(names):
        wrong = min(values) if min(values) < 0 else max(values)
        raise PipelineError(
            f"{name} has the label {wrong}, but its {len(names)} classes are numbered from 0. If -1 marks "
            "test images without labels, leave the file out"
        )
    return [names[value] for value in values]


def _content(column: Any, name: str) -> list[bytes | str] | NDArray[np.uint8]:
    import pyarrow.types as types

    if types.is_struct(column.type):
        column = column.field("bytes")
    if not _is_list(column.type):
        # An empty picture is skipped or refused like any other damaged one.
        return [value or b"" for value in column.to_pylist()]
    shape: list[int] = [len(column)]
    while _is_list(column.type):
        lengths = np.unique(np.asarray(column.value_lengths()))
        if column.null_count or len(lengths) != 1:
            raise PipelineError(f"{name} has lists of pixels of different lengths, or missing ones")
        shape.append(int(lengths[0]))
        column = column.flatten()
    if column.null_count:
        raise PipelineError(f"{name} has a pixel without a value")
    if math.prod(shape[1:]) < FEWEST_PIXELS:
        raise PipelineError(f"{name} has no pictures: lists of {shape[-1]} numbers are too short for pixels")
    values = np.asarray(column).reshape(shape)
    if len(shape) == 2:
        values = values.reshape(-1, *shape_of(shape[1], name))
    return as_levels(without_one_channel(values), name)
