"""Convert images with any number of channels for matplotlib."""

import numpy as np
from numpy.typing import NDArray


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
