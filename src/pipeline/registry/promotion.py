"""Promotion and rollback: give an alias, which users follow, to a new or an earlier version of a model.

The journal is written first, and then the alias is set to what its last line says. So a command that was
interrupted at any point can be repeated, and concurrent promotions have one order.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import PromotionSection, TrackingSection
from pipeline.errors import PipelineError
from pipeline.registry.evidence import Evidence, evaluate, find, members
from pipeline.registry.gate import Champion, Check, check
from pipeline.registry.journal import BrokenError, Entry
from pipeline.registry.registered import lost_version, name_in, refuse_names, refuse_reason, registered
from pipeline.registry.versions import is_of
from pipeline.results.lookup import run_of, telling_deleted, training_id
from pipeline.tracking.failures import unreachable
from pipeline.tracking.identity import read_run
from pipeline.tracking.session import sync
from pipeline.tracking.store import open_store
from pipeline.tracking.stored import fetch

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class PromotionResult:
    """The result of a promotion."""

    checks: Sequence[Check]
    is_open: bool  # whether the gate is open
    version: str | None  # the version that has the alias now; None if nothing was changed
    message: str  # the message for the user


def promote(
    run: str | None,
    name: str | None,
    alias: str,
    settings: PromotionSection,
    tracking: TrackingSection,
    repository: Workspace,
    *,
    dry_run: bool = False,
    force: bool = False,
    reason: str = "",
) -> PromotionResult:
    """Give the alias to the model of a run if the gate is open; the model is registered once.

    Without a run, it is that of the model in `repository`; without a name, the registered model is called
    like the data set. `dry_run` only runs the checks; `force` promotes even if the gate is closed, which the
    journal records with the reason.

    Raises:
        PipelineError: If a name is not valid, MLflow can't be reached, or something is missing.
        TakenError: If another promotion was recorded in the meantime.
    """
    refuse_names(name, alias)
    refuse_reason(reason)
    with translate_mlflow_errors(tracking, repository), tempfile.TemporaryDirectory() as temporary:
        client = open_store(tracking, repository).client
        with telling_deleted(client, tracking, repository):
            candidate = find(_identity(run, tracking, repository), client, Path(temporary) / "candidate")
        name = name or candidate.data
        with registered(name, tracking, repository) as model:
            if not dry_run:
                model.restore_alias(alias)
            lost, champion = model.lost_entry(alias), model.champion(alias)
            is_it = champion and champion.run_id == candidate.run.info.run_id
            if champion and is_it and is_of(champion, candidate.stored.model):
                message = f"{candidate.name} is already {alias} of {name}: version {champion.version}."
                return PromotionResult((), True, str(champion.version), message)
            if lost and not force:
                raise PipelineError(
                    f"{lost_version(lost, name)} Without it, the checks have nothing to compare with."
                )
            now = _champion(candidate, champion, Path(temporary) / "champion", repository)
            predictions = candidate.predictions()
            slices = members(settings.slices, predictions, repository)
            checks = check(predictions, candidate.facts(repository), now, slices, settings)
            is_open = all(found.passed for found in checks)
            if dry_run or not (is_open or force):
                return PromotionResult(checks, is_open, None, _unchanged(checks, is_open))
            model.journal.ensure_run()
            version = model.versions.register(candidate.run, candidate.model, candidate.card)
            model.record(
                alias,
                champion,
                version,
                action="promote",
                forced=not is_open,
                reason=reason,
                checks=[asdict(found) for found in checks],
            )
        was = f", after version {champion.version}" if champion else ""
        how = "" if is_open else " The gate was closed: this is recorded as forced."
        message = f"{candidate.name} is now {alias} of {name}: version {version.version}{was}.{how}"
        return PromotionResult(checks, is_open, str(version.version), message)


def rollback(
    name: str | None,
    alias: str,
    to: str | None,
    tracking: TrackingSection,
    repository: Workspace,
    reason: str = "",
) -> str:
    """Give the alias back to an earlier version, and return a line that says which one has it now.

    Without a name, it is the model named after the data set of the run in `repository`; without `to`, the
    version that had the alias before, one further back with each rollback.

    Raises:
        PipelineError: If a name is not valid, there is no such version, it is damaged, or MLflow can't be
            reached.
        TakenError: If another promotion was recorded in the meantime.
    """
    refuse_names(name, alias)
    refuse_reason(reason)
    name = name or name_in(repository)
    with (
        translate_mlflow_errors(tracking, repository),
        registered(name, tracking, repository) as model,
        tempfile.TemporaryDirectory() as temporary,
    ):
        model.restore_alias(alias)
        last = model.journal.last(alias)
        if last is None:
            raise PipelineError(f"No version of {name} was ever promoted to {alias}.")
        number = to or earlier(model.journal.entries, alias)
        if number is None:
            raise PipelineError(
                f"No version of {name} was {alias} before version {last.version}; choose one with --to."
            )
        if number == last.version:
            if lost := model.lost_entry(alias):
                raise PipelineError(lost_version(lost, name))
            return f"Version {number} is already {alias} of {name}."
        version = model.versions.get(number)
        if version is None:
            known = ", ".join(str(found.version) for found in model.versions.all()) or "none"
            raise PipelineError(f"{name} has no version {number}; its versions: {known}.")
        client = model.versions.client
        stored = fetch(client, run_of(version, client), Path(temporary))
        if stored.problems:
            raise PipelineError(f"Version {number} of {name} can't be used: {stored.problems[0]}")
        model.record(alias, model.champion(alias), version, action="rollback", reason=reason)
        return (
            f"{alias} of {name} is version {number} again ({stored.run.info.run_name}), after {last.version}."
        )


def earlier(entries: Sequence[Entry], alias: str) -> str | None:
    """Return the version that had the alias before the current one, skipping those rolled back from."""
    versions: list[str] = []
    for entry in entries:
        if entry.alias != alias:
            continue
        if entry.action == "rollback" and entry.version in versions:
            del versions[versions.index(entry.version) + 1 :]
        else:
            versions = [*(version for version in versions if version != entry.version), entry.version]
    return versions[-2] if len(versions) > 1 else None


def _champion(
    candidate: Evidence, version: "ModelVersion | None", folder: Path, repository: Workspace
) -> Champion | None:
    if version is None:
        return None
    number, client = str(version.version), candidate.client
    try:
        evidence = Evidence(client, fetch(client, run_of(version, client), folder))
    except PipelineError as error:
        return Champion(number, None, str(error))
    if evidence.stored.problems:
        return Champion(number, None, evidence.stored.problems[0])
    try:
        if evidence.test == candidate.test:
            return Champion(number, evidence.predictions())
        return Champion(number, evaluate(evidence, candidate.test, repository), evaluated_now=True)
    except PipelineError as error:
        return Champion(number, None, str(error))


def _identity(run: str | None, tracking: TrackingSection, repository: Workspace) -> str:
    """The pipeline's id of the training."""
    if run is not None:
        return training_id(run, tracking, repository)
    list(sync(tracking, repository))  # The lines that it yields are for `pipeline sync`.
    return str(read_run(repository.run)["id"])


def _unchanged(checks: Sequence[Check], is_open: bool) -> str:
    if is_open:
        return "The gate is open. Nothing was changed: this was a dry run."
    closed = ", ".join(found.name for found in checks if not found.passed)
    return f"The gate is closed ({closed}): nothing was changed. --force --reason TEXT passes it, on record."


@contextmanager
def translate_mlflow_errors(
    tracking: TrackingSection,
    repository: Workspace,
    failed: str = "failed before everything was done; the same command continues from there",
) -> Iterator[None]:
    """Turn MLflow's exceptions into a PipelineError with a message for the user."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except BrokenError as error:
        raise BrokenError(
            f"{error} `pipeline verify --repair` restores the copy on disk from the one in MLflow."
        ) from None
    except MlflowException as error:
        raise PipelineError(unreachable(error, tracking, repository, failed)) from error
