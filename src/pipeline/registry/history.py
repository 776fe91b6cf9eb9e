"""Show the history of a registered model's aliases, and the gate's checks, as tables."""

from collections.abc import Iterator, Sequence

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.console import table
from pipeline.registry.gate import Check
from pipeline.registry.journal import Entry
from pipeline.registry.promotion import translate_mlflow_errors
from pipeline.registry.registered import deviation, name_in, open_journal, refuse_names
from pipeline.registry.versions import Versions
from pipeline.tracking.store import open_store

_COLUMNS = ("#", "when (UTC)", "who", "alias", "version", "run", "how", "reason")


def history(name: str | None, tracking: TrackingSection, repository: Workspace) -> list[str]:
    """Return the lines that show the history of a registered model, the latest change last.

    Without a name, it is the model named after the data set of the run in `repository`.

    Raises:
        PipelineError: If the name is not valid, the journal is damaged, or MLflow can't be reached.
    """
    refuse_names(name)
    name = name or name_in(repository)
    with translate_mlflow_errors(tracking, repository, "can't be read"):
        journal = open_journal(name, tracking, repository)
        versions = Versions(open_store(tracking, repository).client, name)
        if not journal.entries:
            return [f"No version of {name} was ever promoted: `pipeline promote` does that."]
        rows = [_row(entry) for entry in journal.entries]
        return [*table(_COLUMNS, rows), "", *_now(journal.entries, versions)]


def checks_table(checks: Sequence[Check]) -> list[str]:
    """Return the lines of a table of the gate's checks."""
    rows = [(found.name, found.required, found.found, "yes" if found.passed else "NO") for found in checks]
    return table(("check", "required", "found", "passed"), rows)


def _row(entry: Entry) -> tuple[str, ...]:
    how = entry.action + (", forced" if entry.forced else "")
    change = f"{entry.before or '–'} → {entry.version}"
    return (str(entry.number), entry.time, entry.who, entry.alias, change, entry.run, how, entry.reason)


def _now(entries: Sequence[Entry], versions: Versions) -> Iterator[str]:
    """Yield a line about each alias: its version in MLflow, compared with the journal."""
    last = {entry.alias: entry for entry in entries}
    for alias, entry in last.items():
        yield deviation(entry, versions) or f"{alias}: version {entry.version} ({entry.run})."
