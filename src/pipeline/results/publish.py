"""What MLflow is given of a sweep, made from its report."""

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
from pipeline.tracking.run import RunDeletedError
from pipeline.tracking.store import answers


def main(folder: str, repository: str) -> int:
    """Publish the sweep whose report lies in `folder`; if that fails it is kept for later."""
    try:
        if line := publish(Report.read(Path(folder)), Path(folder), Workspace(Path(repository))):
            say(line)
    except PipelineError as error:
        warn(str(error))
    return 0


def publish(report: Report, folder: Path, repository: Workspace) -> str:
    """Have MLflow show the sweep, its trials below it; a line that says so, "" if there was nothing new.

    Raises:
        PipelineError: MLflow can't be reached, or refused; `pipeline sync` tries again.
    """
    try:
        run_id = send(
            _shown(report, _trained(folder)), folder, TrackingSection(**report.tracking), repository
        )
    except RunDeletedError as error:
        return str(error)
    return f"MLflow run {report.name} ({report.status}): {run_id}" if run_id else ""


def publish_all(repository: Workspace) -> list[str]:
    """Publish the sweeps that MLflow lacks, the oldest first.

    Sweeps under way are left to their own process; one whose process died is KILLED. One that can't be
    published does not hold up the others.

    Raises:
        PipelineError: as `publish` does, after all of them.
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


def _shown(report: Report, trained: Set[str]) -> SweepRun:
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
            **{f"space.{key}": _values(values) for key, values in report.space.items()},
        },
        metrics=metrics,
        tags={
            "pipeline.command": f"python -m pipeline -m {shlex.join(report.command)}",
            **({"pipeline.best": best.trials[0].run or ""} if best else {}),
        },
        note=_note(report, board),
        tables={"leaderboard.csv": _csv(columns(board)), "trials.csv": _csv(_plan(report))},
        trials=[
            SweepTrial(trial.differs, trial.run_id, _why_pruned(trial), trial.run_id in trained)
            for trial in report.trials
            if trial.state not in ("waiting", "running")
        ],
        draw=lambda place: _draw(place, report),
    )


def _trained(folder: Path) -> Set[str]:
    """The ids of the trainings that ran in the sweep, now or when its command was given before."""
    noted = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("trials/*.json")]
    return {trial["run_id"] for trial in noted if trial.get("run_id")}


def _draw(folder: Path, report: Report) -> None:
    # Takes a second, which a sweep that MLflow has already need not pay.
    from pipeline.results.figures.draw import draw

    draw(folder, report)


def _why_pruned(trial: Trial) -> str | None:
    return trial.error or "pruned" if trial.state == "pruned" else None


def _digest(report: Report) -> str:
    """Of what came of the sweep: that it was all known when the command was given again is no news."""
    came = [
        (trial.key, "done" if trial.has_result else trial.state, trial.error, trial.run_id, trial.values)
        for trial in report.trials
    ]
    shown = (report.status, report.objectives, report.space, came)
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def _plan(report: Report) -> dict[str, list[Any]]:
    """Every trial, in the order of the plan, by columns."""

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
    """What a person reads first in MLflow."""
    command = f"    python -m pipeline -m {shlex.join(report.command)}"
    if not (best := board.best):
        return f"No trial has a result yet.\n\n{command}"
    expected = "".join(f" {curve.text}" for curve in curves(board) if curve.text)
    found = ", ".join(f"{name} {value_and_sd(best, name)}" for name in board.objectives)
    return (
        f"Best of {len(board.settings):,}: **{label_of(best.differs) or 'all seeds'}** with {found}. "
        f"`pipeline adopt {best.trials[0].run}` makes it an experiment in conf/.{expected}\n\n{command}"
    )


def _values(values: Any) -> str:
    return ", ".join(map(str, values)) if isinstance(values, list | tuple) else str(values)
