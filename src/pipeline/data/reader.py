"""The reader: from a picture, whatever its format, size and mode, to the array that a data set consists of.

The same function reads a picture when it is fetched, predicted, served and drawn; its settings travel with
the model.
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
_TRANSPOSED = (5, 6, 7, 8)  # orientations that exchange height and width


class PictureError(PipelineError):
    """A picture that can't be read; `reason` is the sentence without the picture's name."""

    def __init__(self, name: str, reason: str) -> None:
        # Both, or it could not pass between processes.
        super().__init__(name, reason)
        self.reason = reason

    def __str__(self) -> str:
        return " ".join(self.args)


def read_picture(source: bytes | str | Path, settings: ReaderSection) -> NDArray[np.uint8]:
    """Read one encoded picture, by its content and not by its name's ending.

    Args:
        source: its bytes, or the path of the file.
        settings: `data.reader`.

    Returns:
        uint8 (height, width) if `settings.colour` is grey, else (height, width, 3); of an animation
        the first frame.

    Raises:
        PictureError: it is empty, no picture, damaged, has too many pixels, or nothing is on it that
            could be prepared.
    """
    return read_sized(source, settings)[0]


def read_sized(
    source: bytes | str | Path, settings: ReaderSection
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """As `read_picture`, and the height and width that the picture had."""
    name = "The picture" if isinstance(source, bytes) else str(source)
    if not isinstance(source, bytes):
        source = _read_file(name)
    try:
        return _read(source, settings)
    except PictureError as error:
        raise PictureError(name, error.reason) from None
    # Pillow's decoders raise whatever a damaged file makes them stumble over.
    except Exception as error:
        raise PictureError(name, f"is damaged: {str(error) or type(error).__name__}") from None


def describe(source: bytes | str | Path) -> tuple[tuple[int, int], str] | None:
    """Height and width of a picture and its mode, by Pillow's name; None: it is no picture."""
    pillow = _pillow()
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with pillow.open(file, formats=FORMATS) as image:
            size, mode = (image.height, image.width), image.mode
            turned = image.format in ("JPEG", "TIFF") and image.getexif().get(_ORIENTATION) in _TRANSPOSED
    # As for reading.
    except Exception:
        return None
    return (size[::-1] if turned else size), mode


def read_pixels(array: NDArray[Any], settings: ReaderSection) -> NDArray[np.uint8]:
    """Take one image that is an array already.

    Args:
        array: must be uint8 of the shape that `settings` makes of pictures.
        settings: `data.reader`.

    Returns:
        The array itself.

    Raises:
        PictureError: it has another type or shape.
    """
    if array.dtype != np.uint8 or array.shape != settings.image_shape:
        raise PictureError(
            "The array",
            f"is {array.dtype} {array.shape}; it must be uint8 {settings.image_shape}",
        )
    return array


def _read_file(path: str) -> bytes:
    """The content of a file that begins as a picture does; of others only the beginning."""
    try:
        # A pipe would else be waited for.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise PictureError(path, "is missing") from None
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise PictureError(path, "is no file")
        with open(number, "rb", buffering=0, closefd=False) as file:
            begin = file.read(16)
            return begin + file.read() if begin.startswith(BEGINNINGS) else begin
    finally:
        os.close(number)


@cache
def _pillow() -> Any:
    # A third of what an import of this module would cost, which arrays need not pay.
    from PIL import Image

    # The limit is ours, and by the same number on every machine.
    Image.MAX_IMAGE_PIXELS = None
    # Odd metadata of a picture is nobody's concern here.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return Image


def _read(content: bytes, settings: ReaderSection) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    pillow = _pillow()
    if not content:
        raise PictureError("", "is empty")
    try:
        image = pillow.open(io.BytesIO(content), formats=FORMATS)
    except pillow.UnidentifiedImageError:
        raise PictureError("", f"is no {_WORDS} picture, by its content") from None
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
    # Other files carry no orientation; asking costs as much as decoding a small picture.
    if image.info or image.format == "TIFF":
        image = _upright(image)
    # By the shape of what was decoded, which may be smaller.
    size = (width, height) if (image.width > image.height) == (height > width) else (height, width)
    if digit:
        prepared = prepare_digit(_levels_for_digit(image, settings), settings.image_size)
        if prepared is None:
            raise PictureError("", "has nothing on it: all of it is of one colour")
        return (prepared if settings.colour == "grey" else np.repeat(prepared[:, :, None], 3, axis=2)), size
    flat = _flat(image, "L" if settings.colour == "grey" else "RGB", settings.background)
    return _resized(flat, settings), size


def _decode_small(image: "Image", settings: ReaderSection) -> None:
    """Have a large JPEG decoded at a half, a quarter or an eighth, still larger than what is wanted."""
    height, width = settings.image_size
    if image.getexif().get(_ORIENTATION) in _TRANSPOSED:
        height, width = width, height
    choose = max if settings.resize == "crop" else min
    scale = choose(width / image.width, height / image.height)
    if settings.resize != "stretch":
        width, height = round(image.width * scale), round(image.height * scale)
    image.draft(None, (max(width, 1), max(height, 1)))


def _upright(image: "Image") -> "Image":
    from PIL import ImageOps

    upright: Image | None = ImageOps.exif_transpose(image)
    return upright or image


def _flat(image: "Image", mode: str, background: str) -> "Image":
    """In the wanted mode, L or RGB, of 8 bits, laid over the background where it is transparent."""
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
    """Whole levels from 0 to 65535 as levels from 0 to 255."""
    levels = np.asarray(image)
    low, high = levels.min(), levels.max()
    if levels.dtype.kind == "f" or low < 0 or high > 65535:
        raise PictureError("", f"has levels from {low:g} to {high:g}; they must be whole, of 8 or 16 bits")
    reduced = (levels.astype(np.uint32) * 255 + 32767) // 65535
    reduced_image: Image = _pillow().fromarray(reduced.astype(np.uint8))
    return reduced_image


def _levels_for_digit(image: "Image", settings: ReaderSection) -> NDArray[np.uint8]:
    """Grey levels uint8 (height, width); black ink without paper would vanish on a black background."""
    levels = np.asarray(_flat(image, "L", settings.background))
    if image.has_transparency_data and levels.min() == levels.max():
        other = "white" if settings.background == "black" else "black"
        levels = np.asarray(_flat(image, "L", other))
    return levels


def _resized(image: "Image", settings: ReaderSection) -> NDArray[np.uint8]:
    """Brought to the wanted size, with antialiasing."""
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
