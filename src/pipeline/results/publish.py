"""Publish sweeps in MLflow: each is a parent run of the runs of its trials, made from its report."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.config.schema import TrackingSection
from pipeline.console import say, warn
from pipeline.errors import PipelineError
from pipeline.results.leaderboard import rank
from pipeline.results.report import Report, Trial, reports
from pipeline.results.summary import command_of, digest_of, metrics_of, note_of, params_of, tables_of
from pipeline.tracking.database import find_run, lacks_tag
from pipeline.tracking.failures import answers, telling_failures
from pipeline.tracking.mlflow_run import EVALUATION_TAG, ID_TAG, NOTE_TAG, PARENT_TAG, MlflowRun, shortened
from pipeline.tracking.occasion import now
from pipeline.tracking.record import differs_text
from pipeline.tracking.run import SWEEP_TAG, TRAINED_IN_TAG, parent_file
from pipeline.tracking.store import Store, is_local, open_store, restore_command, search, uri_of

# Set once the sweep is complete in MLflow.
_DIGEST_TAG = "pipeline.sweep_sha256"
_MAX_SINGLE_SEARCHES = 20  # for more runs than that, one search for all runs is faster


def main(folder: str, repository: str) -> int:
    """Publish the sweep whose report is in `folder`; if that fails, warn: a later command tries again."""
    try:
        if line := publish(Report.read(Path(folder)), Path(folder), Workspace(Path(repository))):
            say(line)
    except PipelineError as error:
        warn(str(error))
    return 0


def publish_all(repository: Workspace) -> Iterator[str]:
    """Publish the sweeps that MLflow lacks, oldest first, and yield a line for each.

    Running sweeps are left to their own process; a sweep whose process died is published as KILLED. A sweep
    that can't be published does not hold up the others.

    Raises:
        PipelineError: If a sweep can't be published; raised after trying the others if MLflow answers.
    """
    errors: list[PipelineError] = []
    for folder, report in reversed(reports(repository)):
        if errors and not answers(TrackingSection(**report.tracking), repository):
            break
        try:
            with FileLock(folder.with_suffix(".lock"), timeout=0):
                if report.status == "RUNNING":
                    report = replace(report, status="KILLED", end=report.end or report.start)
                    report.write(folder)
                line = publish(report, folder, repository)
        except Timeout:
            continue
        except PipelineError as error:
            errors.append(error)
        else:
            if line:
                yield line
    if errors:
        raise errors[0]


def publish(report: Report, folder: Path, repository: Workspace) -> str:
    """Publish the sweep as a run in MLflow with its trials below it, unless MLflow already shows it.

    The folder of the sweep gets the figures, and the MLflow run's id in the file `parent`.

    Returns:
        A line that says so, or that somebody deleted the sweep's run; "" if there was nothing new.

    Raises:
        PipelineError: If MLflow can't be reached or refuses; `pipeline sync` tries again.
    """
    tracking = TrackingSection(**report.tracking)
    digest, receipt = digest_of(report), folder / "sent"
    # Only a hash is stored, because the address may contain a password.
    sent = hashlib.sha256(f"{uri_of(tracking, repository)} {digest}".encode()).hexdigest()
    with FileLock(folder / "sent.lock"):
        if is_local(tracking, repository):
            tags = {SWEEP_TAG: report.id, _DIGEST_TAG: digest}
            trained = [trial.run_id for trial in report.trials if trial.has_ended]
            # Runs of trials that have been rebuilt since then lack the sweep's tag.
            if find_run(repository, tags, only_finished=False) and not lacks_tag(
                repository, trained, f"{SWEEP_TAG}.{report.id}"
            ):
                return ""
        elif receipt.exists() and receipt.read_bytes() == sent.encode():
            return ""
        # Imported late: it takes a second, which a sweep that MLflow already has does not need.
        from pipeline.results.figures.draw import draw

        draw(folder / "figures", report)
        hint = " The sweep is kept in .pipeline/sweeps; `pipeline sync` sends it."
        with telling_failures(tracking, repository, hint=hint):
            run = _find_or_create(report, open_store(tracking, repository))
            if run.is_deleted:
                restore = restore_command(run.id, tracking, repository)
                return (
                    f"The run {report.name} of the sweep was deleted in MLflow: `{restore}` brings it back."
                )
            write_text(parent_file(folder), run.id + "\n")
            lost = _link_trials(report, folder, run)
            _update(report, folder, run)
            if not any((repository.scratch / "runs" / trial).exists() for trial in lost):
                # Last, because these mean that everything is there.
                run.set_tags({_DIGEST_TAG: digest})
                write_text(receipt, sent)
    return f"MLflow run {report.name} ({report.status}): {run.id}"


def _find_or_create(report: Report, store: Store) -> MlflowRun:
    """Return the sweep's own run."""
    from mlflow.tracking.context.registry import resolve_tags

    tags = resolve_tags({SWEEP_TAG: report.id, "mlflow.source.name": "pipeline"})
    found = store.find_or_create(
        {SWEEP_TAG: report.id},
        lambda: store.client.create_run(store.experiment, report.start, tags, report.name),
    )
    return MlflowRun(store.client, found)


def _link_trials(report: Report, folder: Path, parent: MlflowRun) -> set[str]:
    """Put the runs that the sweep trained below its run, tag all, and return the ids of trials without a run.

    Runs that were trained earlier, by `dvc repro` or another sweep, stay where they are.
    """
    client, member = parent.client, f"{SWEEP_TAG}.{report.id}"
    trials = [trial for trial in report.trials if trial.has_ended]
    # The trainings that ran in this sweep, now or when its command was run before.
    noted = [Trial.read(path) for path in folder.glob("trials/*.json")]
    trained_here = {trial.run_id for trial in noted if trial and trial.run_id}
    members = search(client, f"tags.`{member}` LIKE '%'")
    by_id = {run.data.tags.get(ID_TAG): run for run in members}
    missing = {trial.run_id for trial in trials if trial.run_id} - by_id.keys()
    many = len(missing) > _MAX_SINGLE_SEARCHES
    for condition in ["LIKE '%'"] if many else [f"= '{each}'" for each in missing]:
        found = search(client, f"tags.`{ID_TAG}` {condition}")
        by_id |= {run.data.tags[ID_TAG]: run for run in found if EVALUATION_TAG not in run.data.tags}
    unfinished = {run.data.tags[member]: run for run in members if run.info.status != "FINISHED"}
    for trial in trials:
        tags = {member: differs_text(trial.differs)}
        shown = by_id.get(trial.run_id) if trial.run_id else unfinished.get(shortened(tags[member]))
        if not shown:
            continue
        run = MlflowRun(client, shown)
        if trial.state == "pruned":
            tags["pipeline.pruned"] = trial.error or "pruned"
        if trial.run_id in trained_here or run.tags.get(TRAINED_IN_TAG) == report.id:
            tags[PARENT_TAG] = parent.id
        run.set_tags(tags)
    return missing - by_id.keys()


def _update(report: Report, folder: Path, run: MlflowRun) -> None:
    """Send what the sweep's own run shows."""
    client, board = run.client, rank(report)
    run.log_results(metrics_of(report, board), now())
    run.log_params(params_of(report))
    tags = {"pipeline.command": command_of(report), NOTE_TAG: note_of(report, board)}
    if board.best:
        tags["pipeline.best"] = board.best.trials[0].run or ""
    run.set_tags(tags)
    for name, table in tables_of(report, board).items():
        client.log_text(run.id, table, name)
    figures = folder / "figures"
    if figures.exists():
        client.log_artifacts(run.id, str(figures), "figures")
    if report.end:
        client.set_terminated(run.id, report.status, report.end)
    else:
        client.update_run(run.id, report.status)
