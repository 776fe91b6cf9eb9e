"""The images whose labels are probably wrong."""

import numpy as np
from matplotlib.figure import Figure

from pipeline.plots.evaluated import Evaluated
from pipeline.plots.gallery import empty, gallery
from pipeline.plots.text import accuracy_text


def draw(evaluated: Evaluated) -> Figure | None:
    """As many as conf/ says; None if they were not looked for."""
    predictions, doubtful = evaluated.predictions, evaluated.label_issues
    if doubtful is None:
        return None
    if not len(doubtful):
        return empty("Doubtful labels", "None was found", "There are no doubtful labels to show.")
    shown = doubtful[: evaluated.settings.doubtful_labels]
    title = f"The {len(shown):,} most doubtful of {len(doubtful):,} doubtful labels"
    if len(shown) == len(doubtful):
        title = f"All {len(doubtful):,} doubtful labels" if len(doubtful) > 1 else "The only doubtful label"
    given = predictions.probabilities[np.arange(len(predictions.labels)), predictions.labels]
    subtitle = f"label → suggested, with the label's probability; {accuracy_text(predictions)}"
    return gallery(predictions, given, evaluated.images, evaluated.image_shape, shown, title, subtitle)
