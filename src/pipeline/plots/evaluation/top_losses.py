"""The images with the highest loss: those to whose true class the model gave the least probability."""

import numpy as np
from matplotlib.figure import Figure

from pipeline.plots.evaluated import Evaluated
from pipeline.plots.gallery import gallery
from pipeline.plots.text import accuracy_text


def draw(evaluated: Evaluated) -> Figure:
    """Draw `evaluate.top_losses` images, the highest loss first."""
    losses = evaluated.predictions.losses
    highest = np.argsort(-losses, kind="stable")[: evaluated.settings.top_losses]
    title = f"The {len(highest):,} highest losses" if len(highest) > 1 else "The highest loss"
    subtitle = f"true → predicted class, loss; mean loss {losses.mean():.4f}; "
    return gallery(
        evaluated,
        highest,
        [f"{losses[i]:.2f}" for i in highest],
        title,
        subtitle + accuracy_text(evaluated.predictions),
    )
