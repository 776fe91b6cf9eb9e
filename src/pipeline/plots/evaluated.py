"""What the figures of an evaluation show, and every one of them drawn."""

import importlib
import pkgutil
from dataclasses import dataclass
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


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A model that was judged by n test images.

    Args:
        predictions: of the n images.
        images: uint8 (n, pixels), in the predictions' order.
        image_shape: (height, width) or (height, width, channels) of an image.
        history: the training's curves.
        settings: what conf/ says of the figures.
        label_issues: the indices of the images whose labels are probably wrong; None: not looked for.
    """

    predictions: Predictions
    images: NDArray[np.uint8]
    image_shape: tuple[int, ...]
    history: History
    settings: EvaluateSection
    label_issues: Ints | None


def draw(folder: Path, evaluated: Evaluated) -> None:
    """Write each figure into `folder`, which exists: the same bytes for the same predictions.

    All are as wide as MLflow shows them, so that their text is read unscaled.
    """
    with drawing():
        for module in pkgutil.iter_modules(evaluation.__path__):
            figure = importlib.import_module(f"{evaluation.__name__}.{module.name}").draw(evaluated)
            if figure is not None:
                # Figure.savefig would draw it twice.
                canvas: Any = FigureCanvasAgg(figure)
                canvas.print_png(folder / f"{module.name}.png", metadata={"Software": None})
