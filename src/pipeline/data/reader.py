"""The reader: turn a picture of any format, size and mode into an array as data sets consist of.

The same function reads a picture when it is fetched, predicted, served and drawn; its settings are stored
with the model.
"""

import io
import os
import stat
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.section import ReaderSection
from pipeline.data.digit import prepare_digit
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")
_WORDS = "PNG, JPEG, GIF, BMP, WebP or TIFF"
BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"II", b"MM")
_ORIENTATION = 0x0112  # a tag of EXIF
_TRANSPOSED = (5, 6, 7, 8)  # orientations that swap height and width


class PictureError(PipelineError):
    """A picture that can't be read; `reason` is the sentence without the picture's name."""

    def __init__(self, name: str, reason: str) -> None:
        # Both are arguments, so that the exception can be pickled and passed between processes.
        super().__init__(name, reason)
        self.reason = reason

    def __str__(self) -> str:
        return " ".join(self.args)


def read_picture(source: bytes | str | Path, settings: ReaderSection) -> NDArray[np.uint8]:
    """Read one encoded picture or its file; its format is detected by its content, not by its name.

    Returns:
        uint8 (height, width) if `settings.colour` is grey, else (height, width, 3); the first frame of an
        animation.

    Raises:
        PictureError: If it is empty, damaged or not a picture, has too many pixels, or is blank and was to
            be prepared as a digit.
    """
    return read_sized(source, settings)[0]


def read_sized(
    source: bytes | str | Path, settings: ReaderSection
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Read a picture as `read_picture` does, and return also the height and width that it had."""
    name = "The picture" if isinstance(source, bytes) else str(source)
    if not isinstance(source, bytes):
        source = _read_file(name)
    try:
        return _read(source, settings)
    except PictureError as error:
        raise PictureError(name, error.reason) from None
    # Pillow's decoders may raise anything for a damaged file.
    except Exception as error:
        raise PictureError(name, f"is damaged: {str(error) or type(error).__name__}") from None


def describe(source: bytes | str | Path) -> tuple[tuple[int, int], str] | None:
    """Return a picture's (height, width) and Pillow's name of its mode, or None if it is not a picture."""
    pillow = _pillow()
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with pillow.open(file, formats=FORMATS) as image:
            size = image.height, image.width
            return (size[::-1] if _is_turned(image) else size), image.mode
    # Any exception, as in `read_sized`.
    except Exception:
        return None


def read_pixels(array: NDArray[Any], settings: ReaderSection) -> NDArray[np.uint8]:
    """Return an array, if it is an image: uint8, of the shape that pictures get by `settings`.

    Raises:
        PictureError: If it has another type or shape.
    """
    if array.dtype != np.uint8 or array.shape != settings.image_shape:
        raise PictureError(
            "The array",
            f"is {array.dtype} {array.shape}; it must be uint8 {settings.image_shape}",
        )
    return array


def _read_file(path: str) -> bytes:
    """Return the content of a file that begins like a picture; of others only the beginning."""
    try:
        # Non-blocking, since opening a pipe would wait for a writer.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise PictureError(path, "is missing") from None
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise PictureError(path, "is not a file")
        with open(number, "rb", buffering=0, closefd=False) as file:
            begin = file.read(16)
            return begin + file.read() if begin.startswith(BEGINNINGS) else begin
    finally:
        os.close(number)


@cache
def _pillow() -> Any:
    # Imported here, since it would be a third of the import time of this module, and arrays don't need it.
    from PIL import Image

    # Our own limit, `max_pixels`, applies instead.
    Image.MAX_IMAGE_PIXELS = None
    # Warnings about the metadata of a picture don't matter here.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return Image


def _read(content: bytes, settings: ReaderSection) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    pillow = _pillow()
    if not content:
        raise PictureError("", "is empty")
    try:
        image = pillow.open(io.BytesIO(content), formats=FORMATS)
    except pillow.UnidentifiedImageError:
        raise PictureError("", f"is not a {_WORDS} picture, by its content") from None
    width, height = image.size
    if width * height > settings.max_pixels:
        raise PictureError(
            "",
            f"has {width:,}×{height:,} pixels, more than data.reader.max_pixels, {settings.max_pixels:,}",
        )
    digit = settings.prepare == "digit"
    if image.format == "JPEG" and not digit:
        _decode_small(image, settings)
    image.load()
    size = (width, height) if _is_turned(image) else (height, width)
    # Others have no orientation, and looking for it takes as long as decoding a small picture.
    if image.info:
        image = _upright(image)
    if digit:
        prepared = prepare_digit(_levels_for_digit(image, settings), settings.image_size)
        if prepared is None:
            raise PictureError("", "is blank: all of it has one colour")
        return (prepared if settings.colour == "grey" else np.repeat(prepared[:, :, None], 3, axis=2)), size
    flat = _flat(image, "L" if settings.colour == "grey" else "RGB", settings.background)
    return _resized(flat, settings), size


def _decode_small(image: "Image", settings: ReaderSection) -> None:
    """Have a large JPEG decoded at 1/2, 1/4 or 1/8 of its size, but not smaller than the final size."""
    height, width = settings.image_size
    if _is_turned(image):
        height, width = width, height
    choose = max if settings.resize == "crop" else min
    scale = choose(width / image.width, height / image.height)
    if settings.resize != "stretch":
        width, height = round(image.width * scale), round(image.height * scale)
    image.draft(None, (max(width, 1), max(height, 1)))


def _is_turned(image: "Image") -> bool:
    """Check whether the height and width of a picture are swapped by its orientation."""
    # Those of a TIFF file are already swapped by Pillow. A PNG file's own `getexif` would decode it.
    if not image.info or image.format == "TIFF":
        return False
    return _pillow().Image.getexif(image).get(_ORIENTATION) in _TRANSPOSED


def _upright(image: "Image") -> "Image":
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _flat(image: "Image", mode: str, background: str) -> "Image":
    """Convert to mode L or RGB, with 8 bits, and put the background behind transparent parts."""
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if image.has_transparency_data:
        level = 255 if background == "white" else 0
        below = _pillow().new("RGBA", image.size, (level, level, level, 255))
        below.alpha_composite(image.convert("RGBA"))
        image = below.convert("RGB")
    return image.convert(mode)


def _eight_bits(image: "Image") -> "Image":
    """Convert whole levels from 0 to 65535 to levels from 0 to 255."""
    levels = np.asarray(image)
    low, high = levels.min(), levels.max()
    if levels.dtype.kind == "f" or low < 0 or high > 65535:
        raise PictureError(
            "", f"has levels from {low:g} to {high:g}; they must be whole numbers of 8 or 16 bits"
        )
    reduced = (levels.astype(np.uint32) * 255 + 32767) // 65535
    reduced_image: Image = _pillow().fromarray(reduced.astype(np.uint8))
    return reduced_image


def _levels_for_digit(image: "Image", settings: ReaderSection) -> NDArray[np.uint8]:
    """Return grey levels, uint8 (height, width).

    Ink on a transparent background would vanish on a background of its own colour; if so, the other one is
    used.
    """
    levels = np.asarray(_flat(image, "L", settings.background))
    if image.has_transparency_data and levels.min() == levels.max():
        other = "white" if settings.background == "black" else "black"
        levels = np.asarray(_flat(image, "L", other))
    return levels


def _resized(image: "Image", settings: ReaderSection) -> NDArray[np.uint8]:
    """Resize to `settings.image_size`, with antialiasing."""
    pillow = _pillow()
    height, width = settings.image_size
    lanczos = pillow.Resampling.LANCZOS
    if image.size == (width, height):
        pass
    elif settings.resize == "stretch":
        image = image.resize((width, height), lanczos)
    elif settings.resize == "crop":
        scale = max(width / image.width, height / image.height)
        left, top = (image.width - width / scale) / 2, (image.height - height / scale) / 2
        image = image.resize((width, height), lanczos, (left, top, image.width - left, image.height - top))
    else:
        scale = min(width / image.width, height / image.height)
        inner = image.resize(
            (max(1, round(image.width * scale)), max(1, round(image.height * scale))), lanczos
        )
        level = 255 if settings.background == "white" else 0
        image = pillow.new(image.mode, (width, height), level if image.mode == "L" else (level,) * 3)
        image.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))
    return np.array(image)
