"""Evaluated runs to promote, and helpers that read the results in MLflow and in the journal."""

import csv
import os
import shutil
import subprocess

import numpy as np
from harness import client, config, report, train

import promotion_settings
from pipeline.artifacts.workspace import Workspace
from pipeline.registry.journal import path_of
from pipeline.registry.promotion import promote
from pipeline.registry.registered import open_journal
from pipeline.tracking import session as tracking

TRACKING = config().tracking
IMAGES = 1200
LABELS = np.random.default_rng(0).integers(0, 10, IMAGES)
SETTINGS = promotion_settings.SETTINGS.model_copy(
    update={"max_calibration_rise": 0.05, "max_recall_fall": 0.1, "max_milliseconds": 1000.0}
)

# How many of the first test images each run gets wrong.
WRONG = {"good": 60, "same": 62, "worse": 120, "best": 20}


def answer(workspace, wrong):
    """Write the reports of a model that is wrong on the first `wrong` test images."""
    report(workspace, accuracy=1 - wrong / IMAGES)
    predicted = np.where(np.arange(IMAGES) < wrong, (LABELS + 1) % 10, LABELS)
    with workspace.predictions.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("index", "label", "predicted", "confidence", "correct"))
        writer.writerows(
            (index, label, said, "0.950000", int(label == said))
            for index, (label, said) in enumerate(zip(LABELS, predicted, strict=True))
        )


def run_of(workspace, name, wrong, seed, uri=None):
    settings = config(seed=seed, tracking={"run_name": name, "uri": uri, "timeout": 60.0})
    train(settings, workspace)
    with tracking.evaluation(settings, workspace):
        answer(workspace, wrong)


def git(root, *arguments):
    person = {
        f"GIT_{who}_{what}": f"Ada {what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    subprocess.run(["git", "-C", root, *arguments], check=True, capture_output=True, env=os.environ | person)


def add_evaluated_runs(workspace):
    """Make a workspace a repository with a commit and the runs of WRONG; it has the model of `best`."""
    (workspace.root / ".gitignore").write_text("*\n")
    for arguments in (["init", "-q"], ["add", "-f", ".gitignore"], ["commit", "-qm", "first"]):
        git(workspace.root, *arguments)
    for seed, (name, wrong) in enumerate(WRONG.items()):
        run_of(workspace, name, wrong, seed)
    return workspace


def promote_run(repository, run, alias="champion", settings=SETTINGS, **options):
    return promote(run, None, alias, settings, TRACKING, repository, **options)


def failed(promoted):
    return [check.name for check in promoted.checks if not check.passed]


def champion(repository, alias="champion"):
    """Return the version that has the alias, and the name of its run."""
    found = client(repository).get_model_version_by_alias("digits", alias)
    return str(found.version), client(repository).get_run(found.run_id).info.run_name


def journal(repository):
    return open_journal("digits", TRACKING, repository)


def lines_on_disk(repository):
    return path_of(TRACKING, repository, "digits").read_text().removesuffix("\n").split("\n")


def copied(repository, folder):
    shutil.copytree(repository.root, folder)
    return Workspace(folder)
