"""The style that all figures share: those of data sets, evaluations, sweeps and results."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import matplotlib.style
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

DPI = 110
WIDTH = 8.0  # Inches.
INK, GREY, PALE = "#22303c", "#6b7782", "#e9edf0"
BLUE, LIGHT_BLUE, ORANGE, LIGHT_ORANGE = "#2b6ca3", "#9dc0dd", "#d9772b", "#f2cba8"
STYLE: dict[str, object] = {
    "figure.dpi": DPI,
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # A class may be called $1.
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.labelsize": 10.5,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


@contextmanager
def drawing(style: dict[str, object] = STYLE) -> Iterator[None]:
    """Let matplotlib draw with its defaults and `style`, regardless of local settings and fonts."""
    _only_bundled_fonts()
    with matplotlib.style.context(style, after_reset=True):
        yield


@cache
def _only_bundled_fonts() -> None:
    """Use only matplotlib's own fonts, since those of the system or of a font cache may look different."""
    font_manager.fontManager.ttflist = []
    for path in sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("*.ttf")):
        font_manager.fontManager.addfont(path)


def save(figures: Mapping[str, Figure], folder: Path) -> None:
    """Write each figure into the existing `folder`, as NAME.png with the same bytes in all versions."""
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})


def titled(height: float, title: str, subtitle: str) -> Figure:
    """Create an empty figure, `height` inches high, with a title and a subtitle."""
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - 0.7 / height))
    figure = Figure(figsize=(WIDTH, height), layout=layout)
    figure.text(0.015, 1 - 0.14 / height, title, va="top", size=13, weight="bold")
    figure.text(0.015, 1 - 0.42 / height, subtitle, va="top", size=10.5, color=GREY)
    return figure
