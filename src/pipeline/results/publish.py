"""Publish sweeps in MLflow, as their reports describe them."""

import csv
import hashlib
import io
import json
import shlex
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.console import say, warn
from pipeline.errors import PipelineError
from pipeline.results.leaderboard import Leaderboard, columns, label_of, rank, value_and_sd
from pipeline.results.learning_curve import curves
from pipeline.results.report import SIGN, Report, Trial, reports
from pipeline.tracking.parent_run import SweepRun, SweepTrial, send
from pipeline.tracking.run import SettledError
from pipeline.tracking.store import answers


def main(folder: str, repository: str) -> int:
    """Publish the sweep whose report is in `folder`; if that fails, warn: a later command tries again."""
    try:
        if line := publish(Report.read(Path(folder)), Path(folder), Workspace(Path(repository))):
            say(line)
    except PipelineError as error:
        warn(str(error))
    return 0


def publish(report: Report, folder: Path, repository: Workspace) -> str:
    """Publish the sweep as a run in MLflow with its trials below it.

    Returns:
        A line that says so, or "" if there was nothing new.

    Raises:
        PipelineError: If MLflow can't be reached or refuses; `pipeline sync` tries again.
    """
    try:
        run_id = send(
            _sweep_run(report, _trained(folder)), folder, TrackingSection(**report.tracking), repository
        )
    except SettledError as error:
        return str(error)
    return f"MLflow run {report.name} ({report.status}): {run_id}" if run_id else ""


def publish_all(repository: Workspace) -> list[str]:
    """Publish the sweeps that MLflow lacks, oldest first.

    Running sweeps are left to their own process; a sweep whose process died is published as KILLED. A sweep
    that can't be published does not hold up the others.

    Returns:
        A line for each sweep that was published.

    Raises:
        PipelineError: If a sweep can't be published; raised after trying the others if MLflow answers.
    """
    lines: list[str] = []
    errors: list[PipelineError] = []
    for folder, report in reversed(reports(repository)):
        if errors and not answers(TrackingSection(**report.tracking), repository):
            break
        try:
            with FileLock(folder.with_suffix(".lock"), timeout=0):
                if report.status == "RUNNING":
                    report = replace(report, status="KILLED", end=report.end or report.start)
                    report.write(folder)
                lines.append(publish(report, folder, repository))
        except Timeout:
            continue
        except PipelineError as error:
            errors.append(error)
    if errors:
        for line in filter(None, lines):
            say(line)
        raise errors[0]
    return [line for line in lines if line]


def _sweep_run(report: Report, trained: Set[str]) -> SweepRun:
    board = rank(report)
    best = board.best
    metrics: dict[str, float] = {
        "trials": len(report.trials),
        "trials_failed": sum(trial.state == "failed" for trial in report.trials),
        "trials_pruned": sum(trial.state == "pruned" for trial in report.trials),
    }
    if best:
        means = {name: best.mean(name) for name in SIGN}
        metrics |= {f"best_{name}": mean for name, mean in means.items() if mean is not None}
    return SweepRun(
        id=report.id,
        name=report.name,
        digest=_digest(report),
        status=report.status,
        start=report.start,
        end=report.end,
        params={
            "objectives": ", ".join(report.objectives),
            "sweeper": report.sweeper,
            "launcher": report.launcher,
            **{f"space.{key}": _joined(values) for key, values in report.space.items()},
        },
        metrics=metrics,
        tags={
            "pipeline.command": f"python -m pipeline -m {shlex.join(report.command)}",
            **({"pipeline.best": best.trials[0].run or ""} if best else {}),
        },
        note=_note(report, board),
        tables={"leaderboard.csv": _csv(columns(board)), "trials.csv": _csv(_trials_table(report))},
        trials=[
            SweepTrial(trial.differs, trial.run_id, _why_pruned(trial), trial.run_id in trained)
            for trial in report.trials
            if trial.state not in ("waiting", "running")
        ],
        draw=lambda place: _draw(place, report),
    )


def _trained(folder: Path) -> Set[str]:
    """Return the ids of the trainings that ran in this sweep, now or when its command was run before."""
    trials = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("trials/*.json")]
    return {trial["run_id"] for trial in trials if trial.get("run_id")}


def _draw(folder: Path, report: Report) -> None:
    # Imported late: it takes a second, which a sweep that MLflow already has does not need.
    from pipeline.results.figures.draw import draw

    draw(folder, report)


def _why_pruned(trial: Trial) -> str | None:
    return trial.error or "pruned" if trial.state == "pruned" else None


def _digest(report: Report) -> str:
    """Return a digest of the sweep's outcome, the same whether trials were trained now or known before."""
    outcomes = [
        (trial.key, "done" if trial.has_result else trial.state, trial.error, trial.run_id, trial.values)
        for trial in report.trials
    ]
    shown = (report.status, report.objectives, report.space, outcomes)
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def _trials_table(report: Report) -> dict[str, list[Any]]:
    """Return the table of all trials by columns, in the order of the plan."""

    def row(trial: Trial) -> dict[str, Any]:
        return {
            "trial": trial.number,
            **{key: trial.differs.get(key) for key in keys},
            "state": trial.state,
            **{name: trial.values.get(name) for name in SIGN},
            "run": trial.run,
            "seconds": trial.seconds,
            "error": trial.error or None,
            "overrides": shlex.join(trial.overrides),
        }

    keys = list(dict.fromkeys(key for trial in report.trials for key in trial.differs))
    rows = [row(trial) for trial in report.trials]
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _csv(table: Mapping[str, Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    for row in zip(*table.values(), strict=True):
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row])
    return text.getvalue()


def _note(report: Report, board: Leaderboard) -> str:
    """Return the description of the run, which MLflow shows first."""
    command = f"    python -m pipeline -m {shlex.join(report.command)}"
    if not (best := board.best):
        return f"No trial has a result yet.\n\n{command}"
    expected = "".join(f" {curve.text}" for curve in curves(board) if curve.text)
    results = ", ".join(f"{name} {value_and_sd(best, name)}" for name in board.objectives)
    return (
        f"Best of {len(board.settings):,}: **{label_of(best.differs) or 'all seeds'}** with {results}. "
        f"`pipeline adopt {best.trials[0].run}` makes it an experiment in conf/.{expected}\n\n{command}"
    )


def _joined(values: Any) -> str:
    return ", ".join(map(str, values)) if isinstance(values, list | tuple) else str(values)
