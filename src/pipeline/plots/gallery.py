"""Test images in rows, each with its classes and a value above it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from pipeline.evaluation.metrics import Ints, Predictions
from pipeline.plots.evaluated import Evaluated
from pipeline.plots.rows import caption_width, in_rows
from pipeline.plots.text import inches, shortened

_GAP, _SIZE = 0.08, 9  # between images, in inches; of the captions, in points


def gallery(evaluated: Evaluated, chosen: Ints, values: Sequence[str], title: str, subtitle: str) -> Figure:
    """Draw the chosen images in rows; above each, the true and the predicted class and a value.

    There is at least one index in `chosen`; each image has a text in `values`.
    """
    most = 8 if max(map(len, evaluated.predictions.classes)) <= 6 else 6
    columns = int(np.clip(np.ceil(np.sqrt(1.5 * len(chosen))), 4, most))
    captions = _captions(evaluated.predictions, chosen, values, columns)
    return in_rows(
        [evaluated.images[i] for i in chosen],
        captions,
        evaluated.image_shape,
        title,
        subtitle,
        columns=columns,
        caption=0.17 * (captions[0].count("\n") + 1),
        gap=_GAP,
        size=_SIZE,
    )


def _captions(predictions: Predictions, chosen: Ints, values: Sequence[str], columns: int) -> list[str]:
    """Return captions such as "4 → 9   7.31", in as few lines as fit and equally many for all images."""
    characters, width = 104 // columns, caption_width(columns, _GAP)
    names = [shortened(name, characters - 2) for name in predictions.classes]
    captions: list[str] = []
    for layout in ("{} → {}   {}", "{} → {}\n{}", "{}\n→ {}\n{}"):
        captions = [
            layout.format(names[predictions.labels[i]], names[predictions.predicted[i]], value)
            for i, value in zip(chosen, values, strict=True)
        ]
        lines = {line for caption in captions for line in caption.splitlines()}
        if all(len(line) <= characters and inches(line, _SIZE) <= width for line in lines):
            break
    return captions
