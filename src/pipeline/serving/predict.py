"""`pipeline predict`: print a label for each picture, as a table, as JSON lines or as CSV."""

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
from rich.cells import cell_len

from pipeline.artifacts.onnx_file import Classifier
from pipeline.config.section import ReaderSection
from pipeline.console import on_stderr, printable, reader_left, warn
from pipeline.data.pool import in_order
from pipeline.errors import PipelineError
from pipeline.serving.inputs import Item, in_chunks, items
from pipeline.serving.served import unlike

Format = Literal["table", "jsonl", "csv"]
_CHUNK = 128
_JSON = json.JSONEncoder(ensure_ascii=False)  # `json.dumps` would make one for each line
_FEW = 256  # items that are read sooner than other processes could start

# The images that could be read, and the error of each item, empty if it could be read.
_Images = tuple[NDArray[np.uint8], list[str]]


@dataclass(frozen=True)
class Answer:
    """The answer for one item: the likeliest labels with their probabilities, or an error."""

    name: str
    best: tuple[tuple[str, float], ...] = ()
    # None if the model file has no measure of it.
    unlike: bool | None = None
    error: str = ""


def answers(classifier: Classifier, found: Iterable[Item], top: int) -> Iterator[Answer]:
    """Yield an answer with the `top` likeliest labels for each item, in order and in bounded memory."""
    read = functools.partial(_images, reader=classifier.description.reader)
    chunks = ((chunk, chunk, len(chunk)) for chunk in in_chunks(found, _CHUNK))
    for chunk, (images, errors) in in_order(read, chunks, _FEW):
        made = iter(_answers_for(classifier, images, top)) if len(images) else iter(())
        for item, error in zip(chunk, errors, strict=True):
            yield Answer(item.name, error=error) if error else Answer(item.name, *next(made))


def _answers_for(
    classifier: Classifier, images: NDArray[np.uint8], top: int
) -> Iterator[tuple[tuple[tuple[str, float], ...], bool | None]]:
    probabilities = classifier.probabilities(images)
    strange = unlike(classifier, images, probabilities)
    classes = classifier.description.classes
    orders = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    values = np.take_along_axis(probabilities, orders, axis=1)
    for labels, row, is_strange in zip(orders.tolist(), values.tolist(), strange, strict=True):
        yield (
            tuple((classes[label], float(f"{value:.7g}")) for label, value in zip(labels, row, strict=True)),
            is_strange,
        )


def _images(chunk: Sequence[Item], reader: ReaderSection) -> _Images:
    images, errors = [], []
    for item in chunk:
        try:
            images.append(item.read(reader))
            errors.append("")
        except PipelineError as error:
            # The reason leaves out the name, which the answer has already.
            errors.append(getattr(error, "reason", "") or str(error))
    # Sending one array to another process is much faster than sending many.
    return np.array(images, np.uint8), errors


def predict(classifier: Classifier, paths: Sequence[str], top: int, form: Format | None) -> bool:
    """Print answers until the reader closes the pipe, and return whether all items could be read.

    Without a format, it is a table at a terminal and JSON lines in a pipe.

    Raises:
        PipelineError: If a path does not exist.
    """
    form = form or ("table" if sys.stdout.isatty() else "jsonl")
    classes = classifier.description.classes
    top = min(top, len(classes))
    found = items(paths, classifier.description.reader)
    write = _write_json_line if form == "jsonl" else _Csv(top) if form == "csv" else _Table(top, classes)
    answered = 0
    whole = True
    progress: AbstractContextManager[Any] = nullcontext()
    if sys.stderr.isatty() and not sys.stdout.isatty():
        progress = on_stderr("Predicting")
    with progress as bar:
        for answer in answers(classifier, found, top):
            write(answer)
            answered += 1
            whole = whole and not answer.error
            if bar:
                bar.advance(1)
            if reader_left():
                break
    if not answered:
        warn(f"There is nothing to classify in {' '.join(paths)}.")
    sys.stdout.flush()
    return whole


def _write_json_line(answer: Answer) -> None:
    values: dict[str, Any] = {"file": answer.name}
    if answer.error:
        values["error"] = answer.error
    else:
        values["label"], values["probability"] = answer.best[0]
        values["top"] = [{"label": label, "probability": value} for label, value in answer.best]
        if answer.unlike is not None:
            values["unlike"] = answer.unlike
    print(_JSON.encode(values))


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
    """A table with columns wide enough for most names, so that lines can be printed at once."""

    def __init__(self, top: int, classes: Sequence[str]) -> None:
        self._name = max(16, min(40, shutil.get_terminal_size().columns * 2 // 5))
        self._label = min(24, max(cell_len(printable(text)) for text in ("label", *classes)))
        print(f"{'file':<{self._name}}  {'label':<{self._label}}  probability{'  others' if top > 1 else ''}")

    def __call__(self, answer: Answer) -> None:
        # A line break in a name would split its row, and other control characters change the terminal.
        name = printable(answer.name)
        if cell_len(name) > self._name:
            while cell_len(name) >= self._name:
                name = name[1:]
            name = "…" + name
        if answer.error:
            text = answer.error
        else:
            (label, value), *others = answer.best
            listed = ", ".join(f"{printable(other)} {_percent(value)}" for other, value in others)
            text = f"{_padded(printable(label), self._label)}  {_percent(value):>11}  {listed}".rstrip()
            if answer.unlike:
                text += "   unlike the training images: do not rely on this"
        print(f"{_padded(name, self._name)}  {text}", flush=True)


def _padded(text: str, width: int) -> str:
    """Return a text with spaces after it; Chinese and other wide characters take two columns."""
    return text + " " * (width - cell_len(text))


def _percent(probability: float) -> str:
    """Format a probability, but never as 0 % or 100 %."""
    if probability > 0.9995:
        return ">99.9 %"
    return "<0.1 %" if probability < 0.0005 else f"{100 * probability:.1f} %"
