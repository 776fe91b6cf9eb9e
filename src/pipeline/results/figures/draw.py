"""Draw all figures of a sweep."""

from pathlib import Path

from pipeline.plots.style import drawing, save
from pipeline.results.figures.by_hyperparameter import by_hyperparameter
from pipeline.results.figures.learning_curve import learning_curve
from pipeline.results.figures.parallel_coordinates import parallel_coordinates
from pipeline.results.leaderboard import rank
from pipeline.results.learning_curve import curves
from pipeline.results.report import Report


def draw(folder: Path, report: Report) -> None:
    """Write the figures as PNG files into `folder`, if any trial has a result."""
    board = rank(report)
    if board.best is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with drawing():
        figures = {
            "parallel_coordinates": parallel_coordinates(report, board),
            "by_hyperparameter": by_hyperparameter(report, board),
        }
        if learning_curves := curves(board):
            figures["learning_curve"] = learning_curve(learning_curves)
        save(figures, folder)
