"""Images in rows, each with a caption above it, on a figure with a title."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.plots.style import WIDTH, titled
from pipeline.plots.text import fitted

_ABOVE, _MARGIN = 0.8, 0.12  # inches: the height of the title, and the margin on the left and the right
_SPACE = 0.1  # inches between two captions


def caption_width(columns: int, gap: float) -> float:
    """Return how wide a caption may be, in inches, so that it does not touch the next one."""
    return _pitch(columns, gap) - _SPACE


def _pitch(columns: int, gap: float) -> float:
    return (WIDTH - 2 * _MARGIN + gap) / columns


def in_rows(
    images: Sequence[NDArray[np.uint8]],
    captions: Sequence[str],
    image_shape: tuple[int, ...],
    title: str,
    subtitle: str,
    *,
    columns: int,
    caption: float,
    gap: float,
    size: int,
) -> Figure:
    """Draw images in rows.

    The images are uint8 (pixels,) each. Heights and gaps are in inches, the size of the captions is in
    points; lines of captions that would touch those of the neighbours are cut.
    """
    column = _pitch(columns, gap)
    width = column - gap
    height = width * image_shape[0] / image_shape[1]
    row = caption + height + gap
    figure = titled(_ABOVE + -(-len(images) // columns) * row + 0.05, title, subtitle)
    # Drawing all images on one pair of axes takes a fifth of the time of one pair for each image.
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    for position, (image, text) in enumerate(zip(images, captions, strict=True)):
        left, top = _MARGIN + position % columns * column, _ABOVE + position // columns * row + caption
        text = "\n".join(fitted(line, caption_width(columns, gap), size) for line in text.splitlines())
        axes.text(left + width / 2, top - 0.04, text, size=size, ha="center", va="bottom")
        axes.imshow(
            displayable(image, image_shape),
            cmap="gray",
            vmin=0,
            vmax=255,
            interpolation="nearest",
            extent=(left, left + width, top + height, top),
        )
    axes.set(xlim=(0, figure.get_figwidth()), ylim=(figure.get_figheight(), 0))
    axes.set_axis_off()
    return figure


def displayable(image: NDArray[np.uint8], image_shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return what a figure can show of an image: the first three channels, or the first if it has fewer.

    Args:
        image: uint8 (pixels,).
        image_shape: (height, width) or (height, width, channels).

    Returns:
        uint8 (height, width), shown in grey, or (height, width, 3), shown in colour.
    """
    shaped = image.reshape(image_shape)
    if shaped.ndim == 2:
        return shaped
    return shaped[..., :3] if image_shape[2] >= 3 else shaped[..., 0]
