"""The errors that the model was surest of."""

import numpy as np
from matplotlib.figure import Figure

from pipeline.plots.evaluated import Evaluated
from pipeline.plots.gallery import empty, gallery
from pipeline.plots.text import accuracy_text


def draw(evaluated: Evaluated) -> Figure:
    """As many as conf/ says."""
    predictions, worst = evaluated.predictions, evaluated.settings.worst_mistakes
    wrong = np.flatnonzero(~predictions.correct)
    if not len(wrong):
        return empty(
            "The most confident mistakes",
            f"None: {accuracy_text(predictions)}",
            "There are no mistakes to show.",
        )
    surest = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:worst]
    title = "The only mistake" if len(wrong) == 1 else f"All {len(wrong):,} mistakes, most confident first"
    if len(surest) < len(wrong):
        title = f"The {len(surest):,} most confident of {len(wrong):,} mistakes"
    subtitle = f"true → predicted, with its confidence; {accuracy_text(predictions)}"
    return gallery(
        predictions, predictions.confidence, evaluated.images, evaluated.image_shape, surest, title, subtitle
    )
