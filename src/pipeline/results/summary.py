"""What MLflow shows of a sweep, as its report describes it: params, metrics, a description and two tables."""

import csv
import hashlib
import io
import json
import shlex
from collections.abc import Sequence
from typing import Any

from pipeline.results.leaderboard import Leaderboard, label_of, rows, value_and_sd
from pipeline.results.learning_curve import curves
from pipeline.results.report import SIGN, Report


def digest_of(report: Report) -> str:
    """Return a digest of the sweep's outcome, the same whether trials were trained now or known before."""
    outcomes = [
        (trial.key, "done" if trial.has_result else trial.state, trial.error, trial.run_id, trial.values)
        for trial in report.trials
    ]
    shown = (report.status, report.objectives, report.space, outcomes)
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def params_of(report: Report) -> dict[str, str]:
    """Return the settings of the sweep and the values or distribution of each hyperparameter."""
    return {
        "objectives": ", ".join(report.objectives),
        "sweeper": report.sweeper,
        "launcher": report.launcher,
        **{f"space.{key}": _joined(values) for key, values in report.space.items()},
    }


def metrics_of(report: Report, board: Leaderboard) -> dict[str, float]:
    """Return the number of trials, and the means of the best setting."""
    states = [trial.state for trial in report.trials]
    metrics: dict[str, float] = {
        "trials": len(states),
        "trials_failed": states.count("failed"),
        "trials_pruned": states.count("pruned"),
    }
    if board.best:
        means = {name: board.best.mean(name) for name in SIGN}
        metrics |= {f"best_{name}": mean for name, mean in means.items() if mean is not None}
    return metrics


def note_of(report: Report, board: Leaderboard) -> str:
    """Return the description of the run in Markdown, which MLflow shows first."""
    command = f"    {command_of(report)}"
    if not (best := board.best):
        return f"No trial has a result yet.\n\n{command}"
    expected = "".join(f" {curve.text}" for curve in curves(board) if curve.text)
    results = ", ".join(f"{name} {value_and_sd(best, name)}" for name in board.objectives)
    return (
        f"Best of {len(board.settings):,}: **{label_of(best.differs)}** with {results}. "
        f"`pipeline adopt {shlex.quote(str(best.trials[0].run))}` makes it an experiment in conf/.{expected}"
        f"\n\n{command}"
    )


def command_of(report: Report) -> str:
    """Return the command that runs the sweep."""
    return f"python -m pipeline -m {shlex.join(report.command)}"


def tables_of(report: Report, board: Leaderboard) -> dict[str, str]:
    """Return the names of the tables and their contents: CSV, which MLflow shows as tables."""
    keys = dict.fromkeys(key for trial in report.trials for key in trial.differs)
    trials = [
        {
            "trial": trial.number,
            **{key: trial.differs.get(key) for key in keys},
            "state": trial.state,
            **{name: trial.values.get(name) for name in SIGN},
            "run": trial.run,
            "seconds": trial.seconds,
            "error": trial.error or None,
            "overrides": shlex.join(trial.overrides),
        }
        for trial in report.trials
    ]
    return {"leaderboard.csv": _csv(rows(board)), "trials.csv": _csv(trials)}


def _csv(table: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    # A search has no trials when it begins.
    writer.writerow(table[0] if table else ())
    for row in table:
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row.values()])
    return text.getvalue()


def _joined(values: Any) -> str:
    return ", ".join(map(str, values)) if isinstance(values, list | tuple) else str(values)
