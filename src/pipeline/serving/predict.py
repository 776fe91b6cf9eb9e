"""`pipeline predict`: a label for each picture, as a table, as JSON lines or as CSV."""

import csv
import functools
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.config.section import ReaderSection
from pipeline.console import on_stderr, reader_left
from pipeline.data.pool import in_order
from pipeline.errors import PipelineError
from pipeline.serving.inputs import Item, in_chunks, items
from pipeline.serving.predictor import Predictor

Format = Literal["table", "jsonl", "csv"]
_CHUNK = 128
_FEW = 256  # items that are read before other processes would have started

# The images that could be read, and for each item why it could not, or nothing.
_Images = tuple[NDArray[np.uint8], list[str]]


@dataclass(frozen=True)
class Answer:
    """What is said of one item: labels with their probabilities, the likeliest first; or why nothing is."""

    name: str
    best: tuple[tuple[str, float], ...] = ()
    # None: the model's file does not say how that is told.
    unlike: bool | None = None
    error: str = ""


def answers(predictor: Predictor, found: Iterable[Item], top: int) -> Iterator[Answer]:
    """An answer for each item, in their order, in bounded memory.

    Args:
        predictor: that computes.
        found: the items.
        top: how many labels each answer has.
    """
    read = functools.partial(_images, reader=predictor.description.reader)
    chunks = ((chunk, chunk, len(chunk)) for chunk in in_chunks(found, _CHUNK))
    for chunk, (images, errors) in in_order(read, chunks, _FEW):
        made = iter(_of_images(predictor, images, top)) if len(images) else iter(())
        for item, error in zip(chunk, errors, strict=True):
            yield Answer(item.name, error=error) if error else Answer(item.name, *next(made))


def _of_images(
    predictor: Predictor, images: NDArray[np.uint8], top: int
) -> Iterator[tuple[tuple[tuple[str, float], ...], bool | None]]:
    probabilities = predictor.probabilities(images)
    found = predictor.unlike(images, probabilities)
    unlike: Sequence[bool | None] = [None] * len(images) if found is None else found.tolist()
    classes = predictor.description.classes
    orders = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    values = np.take_along_axis(probabilities, orders, axis=1)
    for labels, row, strange in zip(orders.tolist(), values.tolist(), unlike, strict=True):
        yield (
            tuple((classes[label], float(f"{value:.7g}")) for label, value in zip(labels, row, strict=True)),
            strange,
        )


def _images(chunk: Sequence[Item], reader: ReaderSection) -> _Images:
    images, errors = [], []
    for item in chunk:
        try:
            images.append(item.read(reader))
            errors.append("")
        except PipelineError as error:
            # Pictures in archives have no name of their own.
            errors.append(getattr(error, "reason", "") or str(error))
    # One array passes between processes much faster than many.
    return np.array(images, np.uint8), errors


def predict(predictor: Predictor, paths: Sequence[str], top: int, form: Format | None) -> bool:
    """Print an answer for each item of `paths`, as soon as it is there, for as long as somebody reads them.

    Args:
        predictor: that computes.
        paths: of files and folders; "-" is the standard input.
        top: how many labels each answer has.
        form: None: a table at a terminal, JSON lines in a pipe.

    Returns:
        Whether every item could be read.

    Raises:
        PipelineError: a path does not exist.
    """
    form = form or ("table" if sys.stdout.isatty() else "jsonl")
    classes = predictor.description.classes
    top = min(top, len(classes))
    found = items(paths, predictor.description.reader)
    write = _JsonLines() if form == "jsonl" else _Csv(top) if form == "csv" else _Table(top, classes)
    whole = True
    progress: AbstractContextManager[Any] = nullcontext()
    if sys.stderr.isatty() and not sys.stdout.isatty():
        progress = on_stderr("Predicting")
    with progress as bar:
        for answer in answers(predictor, found, top):
            write(answer)
            whole = whole and not answer.error
            if bar:
                bar.advance(1)
            if reader_left():
                break
    sys.stdout.flush()
    return whole


class _JsonLines:
    def __init__(self) -> None:
        self._encode = json.JSONEncoder(ensure_ascii=False).encode

    def __call__(self, answer: Answer) -> None:
        values: dict[str, Any] = {"file": answer.name}
        if answer.error:
            values["error"] = answer.error
        else:
            values["label"], values["probability"] = answer.best[0]
            values["top"] = [{"label": label, "probability": value} for label, value in answer.best]
            if answer.unlike is not None:
                values["unlike"] = answer.unlike
        print(self._encode(values))


class _Csv:
    def __init__(self, top: int) -> None:
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        self._top = top
        more = [f"{name}_{rank}" for rank in range(2, top + 1) for name in ("label", "probability")]
        self._writer.writerow(["file", "label", "probability", *more, "unlike", "error"])

    def __call__(self, answer: Answer) -> None:
        best = [cell for pair in answer.best for cell in pair] or 2 * self._top * [""]
        unlike = "" if answer.unlike is None else int(answer.unlike)
        self._writer.writerow([answer.name, *best, unlike, answer.error])


class _Table:
    """Lines of a width that fits most names: a table that waits for the longest would not stream."""

    def __init__(self, top: int, classes: Sequence[str]) -> None:
        self._name = max(16, min(40, shutil.get_terminal_size().columns * 2 // 5))
        self._label = min(24, max(len(text) for text in ("label", *classes)))
        print(f"{'file':<{self._name}}  {'label':<{self._label}}  probability{'  others' if top > 1 else ''}")

    def __call__(self, answer: Answer) -> None:
        name = answer.name if len(answer.name) <= self._name else "…" + answer.name[1 - self._name :]
        if answer.error:
            text = f"not read: {answer.error}"
        else:
            (label, value), *others = answer.best
            listed = ", ".join(f"{other} {_percent(value)}" for other, value in others)
            text = f"{label:<{self._label}}  {_percent(value):>11}  {listed}".rstrip()
            if answer.unlike:
                text += "   unlike the training images: do not rely on it"
        print(f"{name:<{self._name}}  {text}", flush=True)


def _percent(probability: float) -> str:
    """No answer is certain, and none is impossible."""
    return ">99.9%" if probability > 0.9995 else "<0.1%" if probability < 0.0005 else f"{probability:.1%}"
