"""Every figure of a sweep."""

from pathlib import Path

import matplotlib.style

from pipeline.plots.style import DPI, STYLE
from pipeline.results.figures.by_hyperparameter import by_hyperparameter
from pipeline.results.figures.parallel_coordinates import parallel_coordinates
from pipeline.results.leaderboard import rank
from pipeline.results.report import Report


def draw(folder: Path, report: Report) -> None:
    """Write parallel_coordinates.png and by_hyperparameter.png into `folder`, if any trial has a result."""
    board = rank(report)
    if board.best is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    # The reset keeps a user's matplotlibrc out of the files.
    with matplotlib.style.context(STYLE, after_reset=True):
        figures = {
            "parallel_coordinates": parallel_coordinates(report, board),
            "by_hyperparameter": by_hyperparameter(report, board),
        }
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})
