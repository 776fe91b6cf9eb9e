"""Draw the figures of an evaluation, and define the data that they show."""

import importlib
import pkgutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray

from pipeline.artifacts.history import History
from pipeline.config.schema import EvaluateSection
from pipeline.evaluation.metrics import Ints, Predictions
from pipeline.plots import evaluation
from pipeline.plots.style import drawing
from pipeline.plots.text import drawable


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A model that was evaluated on n test images."""

    predictions: Predictions
    images: NDArray[np.uint8]  # (n, pixels), in the order of the predictions
    image_shape: tuple[int, ...]  # (height, width) or (height, width, channels)
    history: History
    settings: EvaluateSection
    label_issues: Ints | None  # indices of labels that are probably wrong; None if not searched for


def draw(folder: Path, evaluated: Evaluated) -> None:
    """Write each figure into the existing `folder`; the same predictions give the same bytes.

    The figures have the width at which MLflow shows them, so that their text is not scaled.
    """
    with drawing():
        predictions = evaluated.predictions
        if (names := drawable(predictions.classes)) != tuple(predictions.classes):
            evaluated = replace(evaluated, predictions=replace(predictions, classes=names))
        for module in pkgutil.iter_modules(evaluation.__path__):
            figure = importlib.import_module(f"{evaluation.__name__}.{module.name}").draw(evaluated)
            if figure is not None:
                # Figure.savefig would draw the figure twice.
                canvas: Any = FigureCanvasAgg(figure)
                canvas.print_png(folder / f"{module.name}.png", metadata={"Software": None})
