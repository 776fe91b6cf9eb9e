"""Short texts that figures have in common."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipeline.console import count, percent, printable

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

    from pipeline.evaluation.metrics import Predictions

_DOTS = 720  # for an inch, to measure text


def shortened(text: str, characters: int = 20) -> str:
    """Return `text`, cut to at most `characters` characters with an ellipsis."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


def drawable(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of classes as figures can show them.

    matplotlib's own font has no Chinese, Japanese or Korean characters, among others, and would show the same
    box for each. A name that has one, or a line break, is replaced by the number of its class. A name that
    begins or ends with a space is quoted.
    """
    glyphs = _font().get_charmap()
    return tuple(
        printable(name)
        if name.isprintable() and all(ord(letter) in glyphs for letter in name)
        else f"class {number}"
        for number, name in enumerate(names)
    )


def inches(text: str, size: float) -> float:
    """Return the width of a line of text in matplotlib's own font, whose size is in points."""
    from matplotlib.ft2font import LoadFlags

    font = _font()
    font.set_size(size, _DOTS)
    # Not hinted, since a screen's pixels would round the width of each letter.
    font.set_text(text, flags=LoadFlags.NO_HINTING)
    return float(font.get_width_height()[0]) / 64 / _DOTS


def fitted(text: str, width: float, size: float) -> str:
    """Return `text`, cut with an ellipsis to a width in inches."""
    kept = len(text)
    while kept > 1 and inches(shortened(text, kept), size) > width:
        kept -= 1
    return shortened(text, kept)


def _font() -> "FT2Font":
    import matplotlib
    from matplotlib.font_manager import get_font

    return get_font(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf")


def accuracy_text(predictions: "Predictions") -> str:
    """Return the accuracy as text, such as "97.30 % of 10,000 test images right"."""
    return f"{percent(predictions.correct.mean())} of {count(len(predictions.labels), 'test image')} right"
