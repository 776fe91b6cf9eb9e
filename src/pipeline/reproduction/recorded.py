"""Read the records of a run: its inputs, its results, and where and from which code it was made."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts.processed import read_dataset
from pipeline.artifacts.workspace import Workspace
from pipeline.config.params import unedited_values
from pipeline.config.schema import TrackingSection
from pipeline.errors import PipelineError
from pipeline.results.download import download_run, values_in
from pipeline.tracking.identity import describe_split, read_run
from pipeline.tracking.lineage import Code, code_of
from pipeline.tracking.mlflow_run import TEST_TAG
from pipeline.tracking.occasion import Occasion, label_of, occasions_of


@dataclass(frozen=True)
class Origin:
    """The inputs of a run: its configuration and its code."""

    label: str  # its name
    config: Mapping[str, Any]  # the whole configuration, as plain values
    code: Code


@dataclass(frozen=True)
class Recorded(Origin):
    """A run that was trained and evaluated."""

    run: Mapping[str, Any]  # the content of models/run.json
    tags: Mapping[str, str]  # tags of the machine and the packages; empty if unknown
    test: str  # the digest of the test split; empty if unknown
    metrics: Mapping[str, Any]  # the content of reports/metrics.json
    files: Workspace  # holds the model and the predictions


def recorded_here(workspace: Workspace) -> Recorded:
    """Read the run of the workspace from its artifacts.

    Raises:
        PipelineError: If there is no run, it is unfinished or was not evaluated, or its metrics are damaged.
    """
    run = read_run(workspace.run)
    test = describe_split(read_dataset(workspace), "test")["sha256"]
    label = label_of(run, occasions_of(workspace, run["id"]))
    return _recorded(label, run, unedited_values(workspace.params), test, workspace, workspace)


def recorded_in_mlflow(name: str, tracking: TrackingSection, workspace: Workspace, folder: Path) -> Recorded:
    """Download the run that `name` stands for from MLflow.

    The name is that of a run or its id, the unique beginning of one, or a registered version: NAME@ALIAS or
    NAME/NUMBER.

    Raises:
        PipelineError: If MLflow can't be reached, or has no such run, or its files are missing or damaged.
    """
    label, tags, files = download_run(name, tracking, workspace, folder)
    config = values_in(files.params, label)
    return _recorded(label, read_run(files.run), config, tags.get(TEST_TAG, ""), files, workspace)


def origin_in_mlflow(name: str, tracking: TrackingSection, workspace: Workspace, folder: Path) -> Origin:
    """Download the inputs of a run from MLflow; its results may be lost.

    The arguments are those of `recorded_in_mlflow`.

    Raises:
        PipelineError: If MLflow can't be reached, or has no such run or not its configuration.
    """
    label, _, files = download_run(name, tracking, workspace, folder, model=False)
    code, _ = _made_by(read_run(files.run)["id"], files, workspace)
    return Origin(label, values_in(files.params, label), code)


def _made_by(run_id: str, files: Workspace, repository: Workspace) -> tuple[Code, Mapping[str, str]]:
    """Return the code of a run, and the tags of its first occasion."""
    occasions = occasions_of(files, run_id) or occasions_of(repository, run_id)
    first: Occasion | None = next((one for one in occasions if not one.reproduction), None)
    code = first.code if first and first.code.commit != "unknown" else code_of(repository)
    return code, first.tags if first else {}


def _recorded(
    label: str,
    run: Mapping[str, Any],
    config: Mapping[str, Any],
    test: str,
    files: Workspace,
    repository: Workspace,
) -> Recorded:
    if "result" not in run:
        raise PipelineError(f"The training of {label} has not finished: there is nothing to compare with.")
    try:
        metrics = {**json.loads(files.metrics.read_text(encoding="utf-8"))}
    except FileNotFoundError:
        raise PipelineError(f"The run {label} was not evaluated: there is nothing to compare with.") from None
    except (ValueError, TypeError) as error:
        raise PipelineError(
            f"metrics.json of the run {label} is damaged ({error}): `pipeline verify --repair` restores it."
        ) from None
    code, tags = _made_by(run["id"], files, repository)
    return Recorded(label, config, code, run, tags, test, metrics, files)
